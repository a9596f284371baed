"""`scopewise list`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from scopewise.cli import Json, command
from scopewise.registry import package_of, plugins, summary, table
from scopewise.terminal import echo, echo_json


class Kind(StrEnum):
    """What can be listed."""

    methods = "methods"
    localizers = "localizers"
    metrics = "metrics"
    benchmarks = "benchmarks"
    attacks = "attacks"


@command
def list_(kind: Annotated[Kind, typer.Argument(help="What to list.")], as_json: Json = False) -> None:
    """List methods, localizers, metrics, benchmarks or attacks, with a line on each; those of plugins with their package."""
    known = table(kind.value)
    entries = [{"name": name, "summary": summary(target)} for name, target in known.items()]
    entries += [
        {"name": name, "summary": summary(point.value), "package": package_of(point)}
        for name, point in plugins(kind.value).items()
        if name not in known
    ]
    if as_json:
        echo_json(entries)
        return
    width = max(len(entry["name"]) for entry in entries)
    for entry in entries:
        package = f" [{entry['package']}]" if "package" in entry else ""
        echo(f"{entry['name'].replace('_', '-'):<{width}}  {entry['summary']}{package}")
