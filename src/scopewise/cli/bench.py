"""`scopewise bench`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from scopewise.cli import Config, Json, Overwrite, Resume, Set, Wide, command, quiet_libraries, sets
from scopewise.config import RunConfig
from scopewise.run_file import load_config
from scopewise.terminal import echo, echo_json, echo_table, echo_wrapped


@command
@sets(engine="bench.engine")
def bench(
    run_file: Config = None,
    set_: Set = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    engine: Annotated[
        str | None, typer.Option(help="Where the jobs run: local, ray or slurm; none: the run file's.")
    ] = None,
    wide: Wide = False,
) -> None:
    """Make target and oracle once, then every method x seed of the run file; write results.json and table.md."""
    chosen = [f"bench.engine={engine}"] if engine else []
    run_bench(
        load_config(run_file, [*(set_ or []), *chosen]), resume=resume, overwrite=overwrite, as_json=as_json, wide=wide
    )


def run_bench(config: RunConfig, *, resume: bool, overwrite: bool, as_json: bool, wide: bool) -> None:
    """Run a benchmark; print its table (or results) on stdout, and the files' paths on stderr."""
    quiet_libraries()
    from scopewise.runs.bench import Bench
    from scopewise.runs.cluster import distribute
    from scopewise.runs.pipeline import Pipeline

    pipeline = Pipeline(config, resume=resume, overwrite=overwrite)
    with pipeline.folder:
        planned = Bench(pipeline)
        distribute(pipeline)
        results = planned.run()
    if as_json:
        echo_json(results)
    else:
        print_results(results, wide)
    echo(f"results: {pipeline.path / 'results.json'}", err=True)


def print_results(results: Mapping[str, Any], wide: bool) -> None:
    """Print the table of a run: what a terminal has room for, or all as Markdown."""
    from scopewise.report.table import markdown, narrow, remarks

    if wide:
        echo(markdown(results).rstrip())
        return
    echo_table(*narrow(results))
    echo_wrapped("\n".join(["", *remarks(results), "The other columns, settings and origin: --wide."]))
