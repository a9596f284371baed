"""`scopewise unlearn`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scopewise.cli import Config, Overwrite, Resume, Set, command, quiet_libraries, sets
from scopewise.run_file import load_config
from scopewise.terminal import echo


@command
@sets(method="unlearn.method", model="model.target", region="unlearn.region")
def unlearn(
    run_file: Config = None,
    method: Annotated[
        str | None, typer.Option(help="A name of `scopewise list methods`; none: the run file's.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model or adapter to unlearn from; none: the run's target.")] = None,
    region: Annotated[Path | None, typer.Option(help="A region file; none: the method's own localizer.")] = None,
    set_: Set = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Unlearn with one method, evaluate the result, and print the folder of the adapter (or model)."""
    given = {"unlearn.method": method, "model.target": model, "unlearn.region": region}
    config = load_config(run_file, [*(set_ or []), *(f"{key}={value}" for key, value in given.items() if value)])
    quiet_libraries()
    from scopewise.localizers.base import check_arguments
    from scopewise.runs.pipeline import BenchEntry, Pipeline

    entry = BenchEntry.of(config.unlearn.method, config.unlearn.localizer)
    if config.unlearn.region is None:
        check_arguments([entry.localizer], config.localize.localizer_args)
    pipeline = Pipeline(config, resume=resume, overwrite=overwrite)
    with pipeline.folder:
        folder = pipeline.unlearned(entry, config.unlearn, config.run.seed, "run")
        pipeline.measurement.values(folder, str(folder.relative_to(pipeline.path)))
    echo(folder)
