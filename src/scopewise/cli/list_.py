"""`scopewise list`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from scopewise.cli import Json, command
from scopewise.metrics.columns import Declaration
from scopewise.recipes import RECIPES
from scopewise.registry import package_of, plugins, summary, table
from scopewise.terminal import echo, echo_json

Kind = Literal["methods", "wrappers", "localizers", "metrics", "benchmarks", "attacks"]


@command
def list_(kind: Annotated[Kind, typer.Argument(help="The kind to list.")], as_json: Json = False) -> None:
    """List the names of a kind with one line about each, and for plugins their package."""
    known = table(kind)
    entries: list[dict[str, Any]] = [{"name": name, "summary": summary(target)} for name, target in known.items()]
    entries += [
        {"name": name, "summary": summary(point.value), "package": package_of(point)}
        for name, point in plugins(kind).items()
        if name not in known
    ]
    if kind == "methods":
        entries += [
            {"name": name, "summary": recipe.about, "recipe": recipe.method, "default": recipe.default}
            for name, recipe in RECIPES.items()
        ]
    if kind == "metrics":
        for entry in entries:
            if (about := Declaration.read(entry["name"])) is not None:
                entry |= {"label": about.label, "unit": about.unit, "better": about.direction}
    if as_json:
        echo_json(entries)
        return
    width = max(len(entry["name"]) for entry in entries)
    for entry in entries:
        package = f" [{entry['package']}]" if "package" in entry else ""
        direction = f" ({', '.join(filter(None, (entry['unit'], entry['better'])))})" if "better" in entry else ""
        default = " (default)" if entry.get("default") else ""
        echo(f"{entry['name'].replace('_', '-'):<{width}}  {entry['summary']}{direction}{default}{package}")
