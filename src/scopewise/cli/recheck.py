"""`scopewise recheck`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from scopewise.cli import Json, command, quiet_libraries
from scopewise.terminal import echo, echo_json, echo_table


@command
def recheck(
    folder: Annotated[Path, typer.Argument(metavar="LEDGER", help="Folder of a ledger.")],
    model: Annotated[str, typer.Option("--model", help="Folder, GGUF file or hub name of the later model.")],
    rows_of: Annotated[
        list[str] | None,
        typer.Option(
            "--rows-of", metavar="REQUEST=FILE", help="Rows of a request whose folder is gone, or its file. Repeatable."
        ),
    ] = None,
    policy: Annotated[Path | None, typer.Option(help="File with the bounds of the verdict.")] = None,
    base: Annotated[
        str | None,
        typer.Option(help="With --rows-of about at most three persons: the model before fine-tuning, to compare with."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check which requests of a ledger still hold on a later version of the model, and write that into the ledger.

    The facts of each request are measured again. Exit code 0 if all hold, 3 if not.
    """
    quiet_libraries()
    from scopewise.erasure.keys import signing_key
    from scopewise.erasure.ledger import Ledger
    from scopewise.erasure.recheck import holds, recheck
    from scopewise.erasure.request import read_request
    from scopewise.erasure.verdict import read_policy
    from scopewise.errors import ConfigError, ResultError

    ledger = Ledger(folder, signing_key())
    if not ledger.path.is_file():
        raise ResultError(f"{folder}: no {ledger.path.name} in it; give the folder of a ledger")
    given = {}
    for text in rows_of or []:
        request, equals, file = text.partition("=")
        if not (request and equals and file):
            raise ConfigError(f"--rows-of: {text!r}; written as REQUEST=FILE, for example REQ-17=rows.jsonl")
        given[request] = read_request(file, id=request).rows
    found, together = recheck(ledger, model, read_policy(policy), given, base)
    good = holds(found, together)
    if as_json:
        echo_json(
            {"holds": good, "together": together and asdict(together), "requests": [asdict(one) for one in found]}
        )
    else:
        rows = [(one.request, one.state, one.then, one.now.light, one.now.why) for one in found]
        each_green = all(one.now.light == "green" for one in found)
        if together is not None and len(found) > 1 and not each_green:  # else it decides nothing
            rows.append(("all", "", "", together.light, together.why))
        echo_table(("request", "state", "then", "now", "why"), rows)
        echo(f"{len(found)} requests; " + ("all hold" if good else "not all hold"))
    if not good:
        raise typer.Exit(3)
