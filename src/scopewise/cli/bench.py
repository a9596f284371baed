"""`scopewise bench`."""

from __future__ import annotations

import json

import typer

from scopewise.cli import Config, Json, Overwrite, Resume, Set, command, quiet_libraries
from scopewise.config import RunConfig, load_config


@command
def bench(
    run_file: Config = None,
    set_: Set = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make target and oracle once, then every method x seed of the run file; write results.json and table.md."""
    run_bench(load_config(run_file, set_ or []), resume=resume, overwrite=overwrite, as_json=as_json)


def run_bench(config: RunConfig, *, resume: bool, overwrite: bool, as_json: bool) -> None:
    """Run a bench and print its table (or its results) on stdout, and where they are on stderr."""
    quiet_libraries()
    from scopewise.bench import Bench
    from scopewise.pipeline import Pipeline
    from scopewise.report.table import markdown

    pipeline = Pipeline(config, resume=resume, overwrite=overwrite)
    results = Bench(pipeline).run()
    typer.echo(json.dumps(results, indent=2, ensure_ascii=False) if as_json else markdown(results))
    typer.echo(f"results: {pipeline.path / 'results.json'}", err=True)
