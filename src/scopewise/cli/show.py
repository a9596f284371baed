"""`scopewise show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from scopewise.cli import Json, Set, Wide, command
from scopewise.cli.bench import print_results
from scopewise.documents import read_json
from scopewise.erasure.steps import INPUTS, TITLES, progress
from scopewise.errors import ResultError
from scopewise.region import FORMAT, Region
from scopewise.run_file import load_config
from scopewise.schemas import AttacksDocument, ResultsDocument, checked
from scopewise.terminal import echo, echo_json, echo_table, echo_wrapped


@command
def show(
    what: Annotated[
        str,
        typer.Argument(
            help="A run folder, a results file, attacks.json, a region file, a record, the folder of a request, or a run file."
        ),
    ],
    set_: Set = None,
    as_json: Json = False,
    wide: Wide = False,
) -> None:
    """Show the table of a run, a region layer by layer, a record, how far a request is, or a run file with all its defaults."""
    # Imported here, since they need scipy, for which every other command would wait.
    from scopewise.erasure.evidence import NAME, read_record
    from scopewise.erasure.ledger import NAME as LEDGER
    from scopewise.report.attacks import attacks_table
    from scopewise.report.comparison import with_comparisons
    from scopewise.report.regions import region_table

    path = Path(what)
    if path.is_dir() and (path / INPUTS).exists() and not (path / NAME).exists():
        _print_steps(path, as_json)
        return
    if path.is_dir():
        names = ("results.partial.json", "results.json", "record.intoto.json")
        found = [path / name for name in names if (path / name).exists()]
        if not found and (path / LEDGER).exists():
            raise ResultError(f"{what}: a ledger of requests; `scopewise requests {what}` lists them")
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
        from scopewise.erasure.handouts import model_card_section

        statement = read_record(path.read_bytes(), str(path))
        if as_json:
            echo_json(statement)
        elif wide:
            echo(model_card_section(statement).rstrip())
        else:
            _print_record(statement)
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


def _print_steps(folder: Path, as_json: bool) -> None:
    """Print which steps of a request without a record of its own are finished, and how to go on."""
    found, id = progress(folder), read_json(folder / INPUTS, ResultError)["id"]
    several = folder / "requests"
    open_ = [name for name, said in found.items() if said is None]
    if several.is_dir() and not open_ and any(not list(one.glob("record.*")) for one in several.iterdir()):
        open_ = ["record"]
    if as_json:
        echo_json({"request": id, "steps": {name: name not in open_ for name in found}, "finished": not open_})
        return
    echo_wrapped(f"Request {id}\n")
    rows = []
    for number, (name, said) in enumerate(found.items(), start=1):
        state = "done" if name not in open_ else "next" if name == open_[0] else "open"
        rows.append((f"{number}/{len(found)} {TITLES[name]}", state, said or ""))
    echo_table(("Step", "State", "What came out"), rows)
    echo()
    if open_:
        echo_wrapped(
            "Not finished, and no record was written. What is done is kept: give the same `scopewise forget` command again, "
            f"with `--out {folder} --resume`."
        )
    else:
        echo_wrapped(f"Finished. `scopewise show {several}/ID` shows the record of one request.")


def _print_record(statement: Any) -> None:
    """Print what a record says in a table that fits the terminal; `--wide` prints the section for the model card."""
    from scopewise.erasure import words
    from scopewise.erasure.handouts import predicate_of, summary

    predicate = predicate_of(statement)
    evidence, action = predicate["evidence"], predicate["action"]
    echo_wrapped(summary(statement))
    echo()
    done = f"{action['kind']}, {action['method']}" if action["method"] else action["kind"]
    scopes = ", ".join(f"{part['rows']} {scope}" for scope, part in predicate["scopes"].items())
    echo_table(
        (),
        [("Request", predicate["request"]["id"]), ("Rows", scopes), ("Method", done), ("Made", predicate["made"][:10])],
    )
    if evidence["verdict"]:
        rows = []
        for name, one, result in words.tests(evidence):
            figure, interval = words.figure(one["value"]), words.interval(one)
            shown = f"{figure} ({interval})" if interval else figure
            n = "-" if one["n"] is None else f"{one['n']:g}"
            rows.append((name, result, shown, n, words.figure(one["bound"])))
        echo()
        if words.is_by_construction(action["kind"], evidence):
            echo_wrapped(words.BY_CONSTRUCTION)
            echo()
        echo_table(("Test", "Result", "Figure", "n", "Bound"), rows)
    echo()
    echo_wrapped("\n".join(["Limits", *(f"- {limit}" for limit in predicate["limits"])]))
    echo()
    echo_wrapped(f"This is evidence from tests. It is signed with the key {predicate['signer']['keyid']}.")
