"""`scopewise list`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from scopewise.cli import Json, command
from scopewise.methods import FAMILIES
from scopewise.metrics.columns import Declaration
from scopewise.recipes import RECIPES
from scopewise.registry import package_of, plugins, summary, table
from scopewise.run_file import shipped_runs
from scopewise.terminal import echo, echo_json, echo_table

Kind = Literal["methods", "wrappers", "localizers", "metrics", "benchmarks", "attacks"]
Listed = Literal[Kind, "runs"]


@command
def list_(
    kind: Annotated[Listed, typer.Argument(help="The kind to list; `runs`: run files that come with the package.")],
    as_json: Json = False,
) -> None:
    """List the names of a kind with one line about each, and for plugins their package."""
    if kind == "runs":
        runs = [{"name": name, "summary": about} for name, about in shipped_runs().items()]
        if as_json:
            echo_json(runs)
        else:
            echo_table((), [(f"  {run['name']}", run["summary"]) for run in runs])
        return
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
        of_family = {name: heading for heading, names in FAMILIES.items() for name in names}
        for entry in entries:
            entry["family"] = "Recipes" if "recipe" in entry else of_family.get(entry["name"], "Others")
    if kind == "metrics":
        for entry in entries:
            if (about := Declaration.read(entry["name"])) is not None:
                entry |= {"label": about.label, "unit": about.unit, "better": about.direction}
    if as_json:
        echo_json(entries)
        return
    groups: dict[str, list[tuple[str, str]]] = {}
    for entry in entries:
        package = f" [{entry['package']}]" if "package" in entry else ""
        direction = f" ({', '.join(filter(None, (entry['unit'], entry['better'])))})" if "better" in entry else ""
        default = " (default)" if entry.get("default") else ""
        line = f"  {entry['name']}", f"{entry['summary']}{direction}{default}{package}"
        groups.setdefault(entry.get("family", ""), []).append(line)
    rows: list[tuple[str, str]] = []
    width = max(len(name) for lines in groups.values() for name, _ in lines)
    for family, lines in sorted(groups.items(), key=lambda group: [*FAMILIES, *groups].index(group[0])):
        if family:
            echo(("\n" if rows else "") + family)
        echo_table((), [(name.ljust(width), about) for name, about in lines])
        rows += lines
