"""`scopewise tune`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scopewise.cli import Config, Json, Overwrite, Resume, Set, command, quiet_libraries
from scopewise.data.rows import SCOPES, VAL
from scopewise.errors import ConfigError
from scopewise.files import write_json
from scopewise.metrics.columns import label_of
from scopewise.run_file import load_config
from scopewise.terminal import echo, echo_json

if TYPE_CHECKING:
    from scopewise.runs.pipeline import Pipeline


@command
def tune(
    run_file: Config = None,
    set_: Set = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Search the settings of each method of the bench, with the same number of trials, on a held-out part of train.

    Val rows are never used. The trials stay in the run folder, and a `bench` with the protocol `tuned` reuses them. `*`
    marks the Pareto front of each method in Unlearn and Retention Success, `>` the trial that a bench would use.
    """
    config = load_config(run_file, set_ or [])
    quiet_libraries()
    from scopewise.runs.bench import Bench
    from scopewise.runs.pipeline import BenchEntry, Pipeline

    searched = [entry for entry in map(BenchEntry.parse, config.bench.methods) if entry.searched]
    if not searched:
        raise ConfigError(
            f"bench.methods: {', '.join(config.bench.methods)}; recipes and retrain have fixed settings, so there is nothing "
            "to search; name another method"
        )
    pipeline = Pipeline(config, resume=resume, overwrite=overwrite)
    bench = Bench(pipeline)
    found = {}
    with pipeline.folder:
        for entry in searched:
            trials, chosen = bench.tuned(entry)
            found[entry.name] = [{**trial.document(), "chosen": trial.section == chosen} for trial in trials]
        if pipeline.folder.writes:
            write_json(pipeline.path / "tuning.json", found)
        reference = _reference(pipeline)
    if as_json:
        echo_json(found)
    else:
        echo(reference)
        for name, documents in found.items():
            echo("\n".join(_lines(name, documents)))
    echo(f"trials: {pipeline.path / 'tuning.json'}", err=True)


def _reference(pipeline: Pipeline) -> str:
    """Return what was held out, and what the target and, if it decides, the oracle reach there."""
    from scopewise.runs.tune import holdout

    tune = pipeline.config.bench.tune
    part = holdout(pipeline.benchmark, tune)
    models = ("target", "oracle") if tune.choose == "oracle" else ("target",)
    reached = [f"{name} {u:.2f} / {r:.2f}" for name in models for u, r in [pipeline.held_out(name, part)]]
    which = "random ones" if tune.holdout == "random" else "the last of each person or book"
    counts = " and ".join(f"{len(part.select(scope, VAL))} {scope}" for scope in SCOPES)
    return f"held out: {counts} rows of train, {which}; Unlearn / Retention there: {', '.join(reached)}"


def _lines(name: str, trials: list[dict[str, float]]) -> list[str]:
    """Return one line per trial of a method, highest Unlearn Success first."""
    fixed = ("unlearn_success", "retention_success", "extensions", "on_front", "chosen")
    searched = [key for key in trials[0] if key not in fixed]
    unlearn, retention = map(label_of, fixed[:2])
    lines = [f"{name}", f"    {unlearn:>8} {retention:>10}  " + "  ".join(f"{key:>14}" for key in searched)]
    for trial in sorted(trials, key=lambda t: -t["unlearn_success"]):
        marks = ("*" if trial["on_front"] else " ") + (">" if trial["chosen"] else " ")
        numbers = "  ".join(f"{trial[key]:>14.4g}" for key in searched)
        lines.append(f" {marks} {trial['unlearn_success']:>8.2f} {trial['retention_success']:>10.2f}  {numbers}")
    return lines
