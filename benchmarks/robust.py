"""Which forgetting stays? Recipes, WGA and exact retraining: at rest, and after the relearning sweep, over seeds of the target.

    python benchmarks/robust.py runs/robust [--seeds 0 1 2 3 4] [--run-file FILE] [--set KEY=VALUE] [--out FILE] [--only-read]
    python benchmarks/robust.py runs/leaderboard --run-file knowundo_privacy_tiny_leaderboard --targets runs/robust

Each seed has its own target, oracle and models: `run.seed` and `bench.seeds` are that seed, and its folder is `seedN`. Then
every model is attacked. What is complete is kept: run it again to go on. Seeds may run side by side, each with one `--seeds N`;
`--only-read` then makes the table of all that are complete. `--targets` takes target and oracle of each seed from the folder of
an earlier call. Markdown on stdout, JSON in `--out`.

All figures are means over seeds. The 95 % intervals of Unlearn, Retention and gap are over instances and seeds
(docs/statistics.md), those of leakage and drift t intervals over seeds. Differences are paired by seed, and their t intervals
hold for all rows together (Bonferroni). Gap = mean absolute distance of Unlearn and Retention Success to the same seed's
oracle. Leakage = the largest recovery by relearning, as a share of what the un-attacked target knows, with the oracle's as
zero. Drift = KL from the target on general text, nats per token. Price = steps and tokens of training, as shares of the
retraining's, where there is one. "Leads" needs the smallest gap at rest in every pair by Holm over all methods, with intervals
over instances and seeds; for that the values of all rows are written beside `--out`, as `NAME.rows.json.gz`.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy import stats

from scopewise.cli import quiet_libraries
from scopewise.config import RunConfig
from scopewise.documents import read_json
from scopewise.errors import ResultError
from scopewise.files import write_json
from scopewise.report.comparison import compared
from scopewise.report.leader import leader
from scopewise.report.row_values import FILE, pooled, read_row_values, write_row_values
from scopewise.run_file import load_config

RIVAL = "wga"
METRICS = {"unlearn": "unlearn_success/val", "retention": "retention_success/val"}


def run(folder: Path, run_file: str, changes: Sequence[str], seed: int, targets: Path | None = None) -> None:
    """Run the bench and the attacks of one seed, with target and oracle of that seed's folder in `targets`, if given."""
    from scopewise.runs.attack import attack_run
    from scopewise.runs.bench import Bench
    from scopewise.runs.pipeline import Pipeline

    own = [f"run.dir={folder / f'seed{seed}'}", f"run.seed={seed}", f"bench.seeds=[{seed}]"]
    if targets is not None:
        own += [f"model.{name}={(targets / f'seed{seed}' / name).resolve()}" for name in ("target", "oracle")]
    config = load_config(run_file, [*changes, *own])
    pipeline = Pipeline(config, resume=True)
    with pipeline.folder:
        Bench(pipeline).run()
    attacked = attack_run(pipeline.config, redact=True)
    path = folder / f"seed{seed}" / "drift.json"
    known = read_json(path, ResultError) if path.exists() else {}
    if any(row["method"] not in ("target", *known) for row in attacked["results"]):  # also where a method was added
        write_json(path, drifts(pipeline.config, attacked))


def drifts(config: RunConfig, attacked: Mapping[str, Any]) -> dict[str, float]:
    """Return model → drift, of all attacked models of a run and its oracle."""
    from drift import drift
    from scopewise.models.engine import Engine

    run = Path(config.run.dir)
    paths = {
        row["method"]: run / row["model"] for row in attacked["results"] if row["method"] not in ("target", "oracle")
    }
    target, oracle = (getattr(config.model, name) or run / name for name in ("target", "oracle"))
    first = Engine.load(target)
    return {name: drift(first, Engine.load(path)) for name, path in {"oracle": oracle, **paths}.items()}


def read(folder: Path) -> dict[int, dict[str, dict[str, Any]]]:
    """Return seed → model → its figures, of all complete seeds in a folder."""
    found: dict[int, dict[str, dict[str, Any]]] = {}
    for path in sorted(folder.glob("seed*/attacks.json")):
        results = read_json(path.with_name("results.json"), ResultError)
        rows = {row["method"]: row for row in results["rows"]}
        attacks: dict[str, dict[str, Any]] = {}
        for row in read_json(path, ResultError)["results"]:
            attacks.setdefault(row["attack"], {})[row["method"]] = row
        leaks, quantized = attacks["relearning"], attacks.get("quantization", {})
        drift = path.with_name("drift.json")
        drifted = read_json(drift, ResultError) if drift.exists() else {}
        oracle, retrained = rows["oracle"], rows.get("retrain", {}).get("cost")
        models = {}
        for name, row in rows.items():
            values = {key: row["metrics"][metric] for key, metric in METRICS.items()}
            away = [abs(values[key] - oracle["metrics"][metric]) for key, metric in METRICS.items()]
            price = (
                {key: work(row["cost"], key) / work(retrained, key) for key in PRICES}
                if row["cost"] and retrained
                else {}
            )
            models[name] = {
                **values, "gap": sum(away) / len(away), "leakage": leaks.get(name, {}).get("leakage"),
                "leakage_quantized": quantized.get(name, {}).get("leakage"), "drift": drifted.get(name),
                "steps_to_recover": leaks.get(name, {}).get("steps_to_recover"), "price": price,
            }  # fmt: skip
        found[results["config"]["run"]["seed"]] = models
    return found


def work(cost: Mapping[str, Any], key: str) -> float:
    """Return the steps of a training, its tokens, or its seconds without pauses: steps times the median step."""
    return float(cost["steps"] * cost["seconds_per_step"] if key == "seconds" else cost.get(key, math.nan))


def _place(name: str, found: Mapping[int, Mapping[str, Mapping[str, Any]]]) -> tuple[bool, bool, float]:
    """Return what the rows are sorted by: the target, the oracle, then by the mean gap."""
    gap = statistics.fmean(models[name]["gap"] for models in found.values())
    return name != "target", name != "oracle", gap


def _recovered(models: Sequence[Mapping[str, Any]]) -> str:
    """Return after how many steps of relearning half of what the target knows is back: `5`, `5 to 10` or `> 40`."""
    known = [model["steps_to_recover"] for model in models if model["steps_to_recover"]]
    found = [one["unlearned"] for one in known]
    if not known:
        return ""
    if None not in found:
        return str(found[0]) if len(set(found)) == 1 else f"{min(found)} to {max(found)}"
    least = min((one for one in found if one is not None), default=None)
    most = max(one["most"] for one in known)
    return f"> {most}" if least is None else f"{least} to > {most}"


def interval(values: Sequence[float], comparisons: int = 1) -> tuple[float, float, float]:
    """Return mean and t interval, 95 % for all of some comparisons together; an infinite one of a single value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, -math.inf, math.inf
    half = (
        float(stats.t.ppf(1 - 0.025 / comparisons, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    )
    return mean, mean - half, mean + half


def table(
    found: Mapping[int, Mapping[str, Mapping[str, Any]]], statistics_of: Mapping[str, Sequence[Mapping[str, Any]]]
) -> str:
    """Return the Markdown table, the differences to WGA, and whether a method leads at rest.

    Args:
        found: Figures of each seed's models, from `read`.
        statistics_of: The `comparisons` and `leads` of the values of rows, from `compared`.
    """
    spans = {
        one["method"]: {
            "unlearn": one["success"]["unlearn_success"],
            "retention": one["success"]["retention_success"],
            "gap": one["oracle_gap"],
        }
        for one in statistics_of["comparisons"]
    }

    def cell(values: Sequence[float | None], digits: int, span: Mapping[str, float | None] | None = None) -> str:
        known = [value for value in values if value is not None]
        if not known:
            return ""
        mean, *ends = interval(known)
        low, high = (span["low"], span["high"]) if span is not None else ends
        shown = low is not None and high is not None and math.isfinite(low) and low < high
        return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]" if shown else f"{mean:.{digits}f}"

    names = sorted(next(iter(found.values())), key=lambda name: _place(name, found))
    shown = {key: value for key, value in COLUMNS.items() if any(m[n][key] for m in found.values() for n in names)}
    priced = any(m[n]["price"] for m in found.values() for n in names)
    heads = (
        [title for title, _ in shown.values()] + ["steps to recover half"] + (list(PRICES.values()) if priced else [])
    )
    lines = [f"| model | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    for name in names:
        models = [models[name] for models in found.values()]
        own = spans.get(name, {})
        cells = [cell([m[key] for m in models], digits, own.get(key)) for key, (_, digits) in shown.items()]
        cells.append(_recovered(models))
        for key in PRICES if priced else ():
            cells.append(cell([m["price"].get(key) for m in models] if name not in ("target", "oracle") else [], 2))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines.append("")
    others = [name for name in names if name not in (RIVAL, "target", "oracle")] if RIVAL in names else []
    if len(others) > MOST or len(found) == 1:  # one seed has no interval
        others = []
    for name in others:
        pairs = [(models[name], models[RIVAL]) for models in found.values()]
        said = []
        for key in ("gap", "leakage"):
            known = [a[key] - b[key] for a, b in pairs if a[key] is not None and b[key] is not None]
            if not known:
                continue
            mean, low, high = interval(known, len(others))
            said.append(f"{key} {mean:+.2f} [{low:+.2f}, {high:+.2f}]")
        lines.append(f"- {name} - {RIVAL}, paired by seed: {', '.join(said)}")
    lines += [f"- At rest: {leader(lead)}" for lead in statistics_of["leads"]]
    lines.append(f"\n{'Seeds' if len(found) > 1 else 'Seed'} {', '.join(map(str, found))}.")
    return "\n".join(lines)


def against(
    ours: Mapping[str, Any], published: Mapping[str, Any], names: Sequence[str] = ("reset_robust", "reset_fast")
) -> str:
    """Return a line for each recipe: from how many published methods of another run it can be told at rest, and which not.

    Both runs have the same targets, oracles and rows. Tested as "leads" is: Holm over all methods.

    Args:
        ours: Values of rows of the run with the recipes, `NAME.rows.json.gz`.
        published: Those of the run with the methods.
        names: The recipes.
    """
    lines = []
    for name in names:
        own = [model for model in ours["models"] if model["method"] == name]
        (lead,) = compared({**published, "models": [*published["models"], *own]})["leads"]
        if lead["best"] != name:
            lines.append(f"- {name}: {lead['best']} is closer to the oracle.")
            continue
        rivals = lead["rivals"]
        behind = sorted((n for n in rivals if rivals[n]["p_value"] < 0.05), key=lambda n: rivals[n]["value"])
        said = {n: f"{n} ({rivals[n]['value']:.1f} points, p = {rivals[n]['p_value']:.2g})" for n in rivals}
        close = ", ".join(said[n] for n in rivals if n not in behind)
        lines.append(
            f"- {name} is closer to the oracle than {len(behind)} of {len(rivals)} entries, the nearest {said[behind[0]]}"
            + (f"; it cannot be told from {close}." if close else ".")
        )
    return "\n".join(lines)


COLUMNS = {
    "unlearn": ("Unlearn", 1),
    "retention": ("Retention", 1),
    "gap": ("gap", 1),
    "leakage": ("leakage", 2),
    "leakage_quantized": ("at 4 and 8 bits", 2),
    "drift": ("drift", 2),
}
"""Columns of the table: heading and digits; a column without values is left out."""
MOST = 10
"""Models whose differences to WGA are written out; of more, the sentence on who leads at rest says what can be said."""
PRICES = {"steps": "retraining's steps", "tokens": "its tokens"}
"""Columns of the price, as shares of the retraining's. Seconds are not among them: other work on the machine changes them."""


def main(words: Sequence[str] | None = None) -> None:
    """Run the seeds, and print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--run-file", default="knowundo_privacy_tiny_robust")
    parser.add_argument("--set", action="append", default=[], dest="changes")
    parser.add_argument("--targets", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only-read", action="store_true")
    given = parser.parse_args(words)
    quiet_libraries()
    from scopewise.record import manifest

    for seed in [] if given.only_read else given.seeds:
        run(given.folder, given.run_file, given.changes, seed, given.targets)
    found = read(given.folder)
    made_in = [given.folder / f"seed{seed}" for seed in found]
    values = pooled([read_row_values(path / FILE) for path in made_in])
    statistics_of = compared(values)
    config = load_config(given.run_file, given.changes)
    if given.out is not None:
        runs = [read_json(path / "results.json", ResultError)["manifest"]["commit"] for path in made_in]
        made = {**manifest(config, None), "set": given.changes, "runs_at": sorted(set(runs))}
        write_json(
            given.out,
            {
                "manifest": made,
                "config": config.model_dump(mode="json"),
                "seeds": found,
                "leads": statistics_of["leads"],
            },
        )
        write_row_values(given.out.with_suffix(".rows.json.gz"), values)
    print(table(found, statistics_of))


if __name__ == "__main__":
    main()
