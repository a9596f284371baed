"""`scopewise finetune`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from scopewise.cli import Config, Overwrite, Resume, Set, command, quiet_libraries
from scopewise.run_file import load_config
from scopewise.terminal import echo


@command
def finetune(
    run_file: Config = None,
    which: Annotated[
        Literal["target", "oracle"], typer.Option(help="All rows, or the retention scope only.")
    ] = "target",
    set_: Set = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Fine-tune the target (all rows) or the oracle (the retention scope only), and print its folder."""
    config = load_config(run_file, set_ or [])
    quiet_libraries()
    from scopewise.runs.pipeline import Pipeline

    pipeline = Pipeline(config, resume=resume, overwrite=overwrite)
    with pipeline.folder:
        echo(pipeline.finetuned(which))
