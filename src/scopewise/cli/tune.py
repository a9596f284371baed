"""`scopewise tune`."""

from __future__ import annotations

from scopewise.cli import Config, Json, Overwrite, Resume, Set, command, quiet_libraries
from scopewise.files import write_json
from scopewise.metrics.columns import label_of
from scopewise.run_file import load_config
from scopewise.terminal import echo, echo_json


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
    from scopewise.runs.pipeline import Pipeline

    pipeline = Pipeline(config, resume=resume, overwrite=overwrite)
    found = {}
    with pipeline.folder:
        bench = Bench(pipeline)
        for entry in bench.entries:
            if not entry.searched:  # nothing to search
                continue
            trials, chosen = bench.tuned(entry)
            found[entry.name] = [{**trial.document(), "chosen": trial.section == chosen} for trial in trials]
        if pipeline.folder.writes:
            write_json(pipeline.path / "tuning.json", found)
    if as_json:
        echo_json(found)
    else:
        for name, documents in found.items():
            echo("\n".join(_lines(name, documents)))
    echo(f"trials: {pipeline.path / 'tuning.json'}", err=True)


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
