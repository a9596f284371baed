"""`scopewise localize`."""

from __future__ import annotations

from typing import Annotated

import typer

from scopewise.cli import Config, Overwrite, Resume, Set, command, quiet_libraries, sets
from scopewise.registry import canonical
from scopewise.run_file import load_config
from scopewise.terminal import echo


@command
@sets(model="model.target")
def localize(
    run_file: Config = None,
    localizer: Annotated[str, typer.Option(help="A name of `scopewise list localizers`.")] = "gradient",
    model: Annotated[str | None, typer.Option(help="Model or adapter to localize in; none: the run's target.")] = None,
    set_: Set = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Find the parameters that hold the forget scope; print the path of the region file, and on stderr what it chose."""
    config = load_config(run_file, [*(set_ or []), *([f"model.target={model}"] if model else [])])
    name = canonical("localizers", localizer)
    quiet_libraries()
    from scopewise.localizers.base import check_arguments
    from scopewise.region import Region
    from scopewise.report.regions import region_table
    from scopewise.runs.pipeline import Pipeline

    check_arguments([name], config.localize.localizer_args)
    pipeline = Pipeline(config, resume=resume, overwrite=overwrite)
    with pipeline.folder:
        path = pipeline.region(name, config.run.seed)
    echo(region_table(Region.load(path)), err=True)
    echo(path)
