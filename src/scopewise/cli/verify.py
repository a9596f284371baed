"""`scopewise verify`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from scopewise.cli import Json, command
from scopewise.terminal import echo, echo_json, echo_table


@command
def verify(
    record: Annotated[Path, typer.Argument(metavar="RECORD", help="A record, or the folder that holds it.")],
    model: Annotated[
        Path | None, typer.Option("--model", help="Folder of the model; none: `export` beside the record.")
    ] = None,
    ledger: Annotated[
        Path | None,
        typer.Option("--ledger", help="The ledger, or its folder; none: in the record's folder, or the one above."),
    ] = None,
    rows: Annotated[
        Path | None, typer.Option("--rows", help="The request, or its rows; a few facts are measured again.")
    ] = None,
    rows_key: Annotated[
        Path | None, typer.Option("--rows-key", help="Folder with the controller's `rows.key`; none: your own keys.")
    ] = None,
    signer: Annotated[
        str | None, typer.Option("--signer", help="Fingerprint of the signer's key, as the signer published it.")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option("--policy", help="File with the bounds of the verdict, if not the shipped ones.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base", help="With --rows about at most three persons: the model before fine-tuning, to compare with."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Verify a record: signature, schema, page, the model's files, the ledger, and which rows it is about.

    Exit code 3 if anything is not as the record says. What could not be checked is listed.
    """
    from scopewise.erasure.verdict import read_policy
    from scopewise.erasure.verify import verify_record

    read, key = None, None
    if rows is not None:
        from scopewise.erasure.keys import key_folder
        from scopewise.erasure.keys import rows_key as read_key
        from scopewise.erasure.request import read_request
        from scopewise.errors import ConfigError

        read, key = read_request(rows, id="verify").rows, read_key(rows_key, make=False)
        if key is None:
            raise ConfigError(f"--rows-key: no rows.key in {rows_key or key_folder()}; name the folder that holds it")
    bounds = read_policy(policy)
    checks = verify_record(
        record, model=model, ledger=ledger, signer=signer, rows=read, key=key, policy=bounds, base=base
    )
    failed = any(check.result == "failed" for check in checks)
    if as_json:
        echo_json({"verified": not failed, "checks": [asdict(check) for check in checks]})
    else:
        echo_table((), [(check.name, check.result, check.detail) for check in checks])
        said = ["not verified" if failed else "verified"]
        for result in ("undecided", "not checked"):
            open_ = [check.name for check in checks if check.result == result]
            said += [f"{result}: {', '.join(open_)}"] if open_ and not failed else []
        echo("; ".join(said))
    if failed:
        raise typer.Exit(3)
