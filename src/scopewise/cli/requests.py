"""`scopewise requests`."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated

import typer

from scopewise.cli import Json, command
from scopewise.terminal import echo, echo_json, echo_table


@command
def requests(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a ledger.")],
    as_json: Json = False,
) -> None:
    """List the deletion requests of a ledger: where each stands, its deadline, and what is late.

    The chain is checked first; if it is broken, the line is named.
    """
    from scopewise.erasure.ledger import Ledger
    from scopewise.errors import ResultError

    ledger = Ledger(folder)
    if not ledger.path.is_file():
        raise ResultError(f"{folder}: no {ledger.path.name} in it; give the folder of a ledger")
    now, found = datetime.datetime.now(datetime.UTC), ledger.statuses()
    rows = [
        {
            "request": status.request,
            "state": status.state,
            "since": status.since.isoformat(timespec="seconds"),
            "due": status.due.isoformat(timespec="seconds") if status.due else None,
            "late": status.late(now),
            "light": status.facts.get("light"),
            "record": status.record,
        }
        for status in found
    ]
    if as_json:
        echo_json(rows)
        return
    echo_table(
        ("request", "state", "since", "due", "light"),
        [
            (
                status.request,
                status.state,
                f"{status.since:%Y-%m-%d}",
                (f"{status.due:%Y-%m-%d}" if status.due else "-") + (" late" if status.late(now) else ""),
                str(status.facts.get("light", "-")),
            )
            for status in found
        ],
    )
    late = sum(status.late(now) for status in found)
    count = "1 request" if len(found) == 1 else f"{len(found)} requests"
    echo(f"{count}, {late} late; the chain is unbroken")
