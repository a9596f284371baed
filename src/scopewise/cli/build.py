"""`scopewise build`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scopewise.cli import Json, Overwrite, command
from scopewise.errors import ConfigError, ResultError
from scopewise.registry import allowed
from scopewise.terminal import echo, echo_json, echo_table, echo_wrapped


@command
def build(
    instances: Annotated[
        Path,
        typer.Argument(metavar="INSTANCES", help="Persons or works with attributes: YAML, JSON, JSON lines or CSV."),
    ],
    law: Annotated[
        list[str] | None,
        typer.Option(help="Law table: privacy-gdpr, privacy-ccpa, copyright-us, or a YAML file. Repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the benchmark; none: benchmarks/NAME of INSTANCES.")
    ] = None,
    kinds: Annotated[str | None, typer.Option(help="Kinds of questions, with commas; none: all.")] = None,
    wrong: Annotated[int, typer.Option(min=5, max=50, help="Wrong answers of each row.")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Of all draws; the same seed gives the same bytes.")] = 0,
    licence: Annotated[str | None, typer.Option(help="Licence of the benchmark; none: what INSTANCES states.")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Build a benchmark from instances: scopes by law, questions, checks, and a datasheet.

    By templates, it needs no model and no network. Then `scopewise check OUT/run.yaml`, `scopewise forget OUT/rows.jsonl`.
    """
    from scopewise.building.datasheet import FILE
    from scopewise.building.instances import read_instances
    from scopewise.building.law import read_law
    from scopewise.building.make import RUN, Settings
    from scopewise.building.make import build as make
    from scopewise.building.questions import KINDS
    from scopewise.building.templates import wordings

    asked = tuple(part.strip() for part in kinds.split(",")) if kinds else KINDS
    for kind in asked:
        if kind not in KINDS:
            raise ConfigError(f"--kinds: {kind!r}; {allowed(kind, KINDS)}")
    laws = tuple(read_law(name) for name in law or ["privacy-gdpr"])
    folder = out or Path("benchmarks") / instances.name.partition(".")[0]
    if (folder / FILE).exists() and not overwrite:
        raise ResultError(f"--out: {folder} has a benchmark; name another folder, or add --overwrite")
    found = read_instances(instances, laws, {kind: wordings(kind) for kind in ("person", "work")})
    sheet = make(found, instances.name, Settings(laws, asked, seed, wrong, licence or ""), folder)
    if as_json:
        echo_json(sheet)
        return
    counts = sheet["counts"]
    echo_wrapped(f"{folder}: {counts['rows']} rows about {sheet['instances']} instances")
    echo_table(("rows", ""), [(name, str(count)) for name, count in counts["places"].items()])
    failed = {name: count for name, count in sheet["checks"]["failed"].items() if count}
    if failed or sheet["left_out"]:
        echo_table(("check", "failed by"), [(name, str(count)) for name, count in failed.items()])
        echo(f"{sheet['left_out']} rows left out; see {folder / 'left_out.jsonl'}")
    for one in sheet["instances_left_out"]:
        echo_wrapped(f"left out: {one['instance']}, since {one['why']}")
    echo_wrapped(f"Next: scopewise check {folder / RUN}, or read {folder / 'DATASHEET.md'}")
