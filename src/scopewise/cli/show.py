"""`scopewise show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import yaml

from scopewise.cli import Json, Set, Wide, command
from scopewise.cli.bench import print_results
from scopewise.documents import read_json
from scopewise.errors import ResultError
from scopewise.region import FORMAT, Region
from scopewise.run_file import load_config
from scopewise.schemas import AttacksDocument, ResultsDocument, checked
from scopewise.terminal import echo, echo_json


@command
def show(
    what: Annotated[
        str, typer.Argument(help="A run folder, a results file, attacks.json, a region file, a record, or a run file.")
    ],
    set_: Set = None,
    as_json: Json = False,
    wide: Wide = False,
) -> None:
    """Show the table of a run, a region layer by layer, what a record says, or a run file with all its defaults."""
    # Imported here, since they need scipy, for which every other command would wait.
    from scopewise.report.attacks import attacks_table
    from scopewise.report.comparison import with_comparisons
    from scopewise.report.regions import region_table

    path = Path(what)
    if path.is_dir():
        names = ("results.partial.json", "results.json", "record.intoto.json")
        found = [path / name for name in names if (path / name).exists()]
        if not found:
            raise ResultError(f"{what}: no results.json in it; `scopewise bench` writes one")
        path = found[0]
    if path.suffix != ".json":
        if not path.suffix and len(path.parts) > 1 and not path.exists():
            raise ResultError(f"{what}: no such run folder; give one, or a run file, a results file or a region file")
        config = load_config(what, set_ or []).model_dump(mode="json")
        if as_json:
            echo_json(config)
        else:
            echo(yaml.safe_dump(config, sort_keys=False).rstrip())
        return
    document = read_json(path, ResultError)
    if isinstance(document, dict) and "payloadType" in document:
        from scopewise.erasure.evidence import read_record
        from scopewise.erasure.handouts import model_card_section

        statement = read_record(path.read_bytes(), str(path))
        if as_json:
            echo_json(statement)
        else:
            echo(model_card_section(statement).rstrip())
    elif as_json:
        echo_json(document)
    elif isinstance(document, dict) and document.get("format") == FORMAT:
        echo(region_table(Region.load(path)))
    elif isinstance(document, dict) and str(document.get("format")).startswith("scopewise-attacks"):
        echo(attacks_table(checked(document, AttacksDocument, what)))
    elif isinstance(document, dict) and "rows" in document and "manifest" in document:
        print_results(with_comparisons(checked(document, ResultsDocument, what)), wide)
    else:
        raise ResultError(f"{what}: neither results, attacks nor a region; give a file that scopewise wrote")
