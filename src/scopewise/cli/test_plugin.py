"""`scopewise test-plugin`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from scopewise.cli import Json, command, quiet_libraries
from scopewise.cli.list_ import Kind
from scopewise.documents import parse_yaml
from scopewise.errors import ConfigError
from scopewise.terminal import echo, echo_json


@command
def test_plugin(
    name: Annotated[str, typer.Argument(help="A plugin's name, package.module:Class, or a name of `scopewise list`.")],
    kind: Annotated[Kind | None, typer.Option(help="Its kind; none: found by its name.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One of its own settings. Repeatable.")
    ] = None,
    path: Annotated[str | None, typer.Option(help="File or folder that a benchmark loads.")] = None,
    as_json: Json = False,
) -> None:
    """Test a method, localizer, metric, attack or benchmark of your own on a small model; exit code 3 if a test fails."""
    arguments: dict[str, Any] = {}
    for text in set_ or []:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set: {text!r}; written as KEY=VALUE")
        arguments[key.strip()] = parse_yaml(value, f"--set {key}", ConfigError)
    quiet_libraries()
    from scopewise.testing.findings import findings, kind_of

    found = []
    for finding in findings(kind or kind_of(name), name, arguments, path):
        found.append(finding)
        if not as_json:
            note = f"  {finding.note}" if finding.note else ""
            echo(f"{finding.verdict:<4}  {finding.name}{note}")
    if as_json:
        echo_json([{"property": f.name, "verdict": f.verdict, "note": f.note} for f in found])
    if any(finding.verdict == "fail" for finding in found):
        raise typer.Exit(3)
