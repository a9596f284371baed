"""`scopewise review`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from scopewise.cli import Json, command
from scopewise.errors import ConfigError
from scopewise.terminal import echo, echo_json, echo_table


@command
def review(
    benchmark: Annotated[Path, typer.Argument(metavar="BENCHMARK", help="A folder that `scopewise build` wrote.")],
    file: Annotated[Path | None, typer.Option(help="The review file; none: review.csv in the folder.")] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Rows to review, drawn at random; none: all.")] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Apply the review file to the benchmark.")] = False,
    page: Annotated[bool, typer.Option(help="Open a local page to judge rows; else only write the file.")] = True,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 takes a free one.")] = 8766,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Draw the rows anew; the verdicts in the review file are lost.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Judge the rows of a built benchmark: yes, no, or an edit, on a local page (extra: play) or in a CSV file.

    Verdicts go to the review file at once; `--merge` applies them and keeps them in the datasheet.
    """
    from scopewise.building.datasheet import read_datasheet
    from scopewise.building.review import FILE, check_fit, read_review, sampled, write_review
    from scopewise.building.review import merge as apply

    path = file or benchmark / FILE
    read_datasheet(benchmark)
    if merge:
        sheet = apply(benchmark, path)
        if as_json:
            echo_json(sheet["review"])
        else:
            echo_table(("review", "rows"), [(name, str(count)) for name, count in sheet["review"].items()])
        return
    if overwrite or not path.exists():
        write_review(path, sampled(benchmark, sample))
    else:
        check_fit(benchmark, path, read_review(path))
        if sample:
            echo(f"{path}: there already, and continued; --overwrite draws other rows")
    if not page:
        echo(f"{path}: fill the column verdict with yes, no or edit, then: scopewise review {benchmark} --merge")
        return
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"review: {' and '.join(missing)} not installed; pip install 'scopewise[play]', or add --no-page"
        )
    from scopewise.building.review_page import make_app
    from scopewise.play.server import listen, serve_app

    host = "127.0.0.1"
    rows = read_review(path)
    opened = listen(host, port)
    try:
        serve_app(
            lambda key: make_app(rows, path, benchmark.name, key=key, host=host), opened, host,
            lambda address: echo(f"Open {address}\nStop with Ctrl+C."),
        )  # fmt: skip
    except KeyboardInterrupt:  # the normal way to stop it
        raise typer.Exit(0) from None
