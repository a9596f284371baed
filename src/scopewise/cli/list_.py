"""`scopewise list`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from scopewise.cli import Json, command
from scopewise.registry import summary, table
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
    """List methods, localizers, metrics, benchmarks or attacks, with a line on each."""
    entries = {name: summary(target) for name, target in table(kind.value).items()}
    if as_json:
        echo_json([{"name": n, "summary": s} for n, s in entries.items()])
        return
    width = max(map(len, entries))
    for name, text in entries.items():
        echo(f"{name.replace('_', '-'):<{width}}  {text}")
