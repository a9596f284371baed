"""`scopewise report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from scopewise.cli import command
from scopewise.errors import ConfigError, ResultError
from scopewise.terminal import echo

Format = Literal["html", "md", "csv", "tex", "png", "svg", "pdf"]


@command
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders; several are put side by side.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write; none: report.html (table.tex, …) in the run folder."),
    ] = None,
    format_: Annotated[
        Format | None, typer.Option("--format", help="What to write; none: as the name of --output ends, or html.")
    ] = None,
    plot: Annotated[
        Literal["scatter", "regions", "curves"], typer.Option(help="What a png, svg or pdf shows.")
    ] = "scatter",
    redact: Annotated[
        bool, typer.Option("--redact", help="Replace answers of the forget scope by salted hashes.")
    ] = False,
    salt: Annotated[
        str | None, typer.Option(help="Salt of the hashes, to compare several reports; none: random, and not stored.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Write one self-contained page on what a run's models forgot, kept and leak; or its table or plot for a paper.

    The page contains answers of the forget scope in plain text, like the run folder, unless you give --redact.
    """
    chosen = format_ or _by_name(output)
    if salt is not None and not redact:
        raise ConfigError("--salt: given without --redact; add --redact, or leave it out")
    if output is None and len(runs) > 1:
        raise ConfigError(f"--output: none given for {len(runs)} runs; name the file to write with -o")
    names = {"html": "report.html", "md": "report.md", "csv": "table.csv", "tex": "table.tex"}
    path = output or runs[0] / names.get(chosen, f"{plot}.{chosen}")
    if path.exists() and not overwrite:
        raise ResultError(f"{path}: exists; add --overwrite to replace it, or name another file with -o")
    from scopewise.files import write_bytes
    from scopewise.report.run_folder import read_runs

    found = read_runs(runs)
    if redact and chosen != "html":
        from scopewise.report.redact import private

        found = private(found, salt)[0]
    if chosen == "html":
        from scopewise.report.page import render

        content = render(found, redact=redact, salt=salt).encode()
    elif chosen in ("png", "svg", "pdf"):
        from scopewise.report.plots import plot as draw

        content = draw(found, plot, chosen)
    else:
        from scopewise.report.export import as_csv, as_latex, as_markdown

        content = {"md": as_markdown, "csv": as_csv, "tex": as_latex}[chosen](found).encode()
    write_bytes(path, content)
    echo(path)


def _by_name(output: Path | None) -> str:
    ending = "html" if output is None else output.suffix.lstrip(".").lower()
    if ending == "htm":
        return "html"
    known = get_args(Format)
    if ending not in known:
        raise ConfigError(
            f"--output: {output}; its name ends in none of {', '.join(known)}; name it so, or add --format"
        )
    return ending
