"""Does it matter how unlearning trains what LoRA has taught? MemFlex in three ways, with three regions each.

    scopewise finetune knowundo_privacy_tiny --set run.dir=runs/knowundo_base --set data.path=DATA
    python benchmarks/setups.py runs/setups [--run-file builtin_lora] [--targets 3] [--set KEY=VALUE] [--out FILE]

Target and oracle are taught by LoRA, once for each seed of the target. Then MemFlex unlearns the target with the paper's
settings in each way: *continued* (the target's own adapter, as in the paper), *fresh* (that adapter merged and a new one added,
whose B is zero), *all* (merged, and all matrices trained); each with the region of its gradients, a random one of the same
size, and everything trainable. The run file's `bench.seeds` are those of the unlearning. What is complete is kept: run it again
to go on. Markdown on stdout, JSON in `--out`, progress on stderr. Differences are paired by target and seed, with t intervals
that hold for the three ways together (Bonferroni, 95 %).
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
from scopewise.files import write_json
from scopewise.report.table import untaught
from scopewise.run_file import load_config

WAYS = {"continued": [], "fresh": ["unlearn.adapter=fresh"], "all": ["unlearn.parameters=all"]}
REGIONS = {"gradient": "memflex", "random": "memflex@random", "all": "memflex@all"}
KEYS = ("unlearn_success/val", "retention_success/val", "average_success/val")


def benches(
    folder: Path, run_file: str, targets: int, changes: Sequence[str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Run a bench for each target and way; return the rows, with `way` and `target_seed`, and what is wrong with targets."""
    from scopewise.runs.bench import Bench
    from scopewise.runs.pipeline import Pipeline

    found: list[dict[str, Any]] = []
    warnings: list[str] = []
    for seed in range(targets):
        first = folder / f"target{seed}" / "continued"
        for way, own in WAYS.items():
            shared = [] if way == "continued" else [f"model.{m}={first / m}" for m in ("target", "oracle")]
            always = [
                "finetune.parameters=lora",
                "bench.protocols=[paper]",
                f"bench.methods=[{','.join(REGIONS.values())}]",
            ]
            settings = [*changes, *always, *own, *shared, f"run.seed={seed}", f"run.dir={first.with_name(way)}"]
            pipeline = Pipeline(load_config(run_file, settings), resume=True)
            with pipeline.folder:
                results = Bench(pipeline).run()
            found += [{**row, "way": way, "target_seed": seed} for row in results["rows"]]
            if way == "continued" and (warning := untaught(results)) is not None:
                warnings.append(f"Target {seed}: {warning}")
    return found, warnings


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the values of each way and region, of target and oracle, and the paired differences to the random region."""
    values: dict[str, dict[tuple[int, int], list[float]]] = {}
    for row in rows:
        region = next((name for name, entry in REGIONS.items() if entry == row["method"]), None)
        if region is None and row["way"] != "continued":
            continue  # target and oracle are those of the first way
        name = row["method"] if region is None else f"{row['way']}, {region}"
        values.setdefault(name, {})[(row["target_seed"], row["seed"])] = [row["metrics"][key] for key in KEYS]
    differences = {}
    for way in WAYS:
        pairs = zip(values[f"{way}, gradient"].values(), values[f"{way}, random"].values(), strict=True)
        differences[way] = [gradient[2] - control[2] for gradient, control in pairs]
    return {
        "models": {name: list(found.values()) for name, found in values.items()},
        "gradient - random, Average": differences,
    }


def markdown(found: Mapping[str, Any]) -> str:
    """Return the table: mean ± standard deviation over seeds, in percent on val."""
    lines = ["| way, region | Unlearn | Retention | Average |", "|---|---:|---:|---:|"]
    for name, models in found["models"].items():
        cells = (spread([model[i] for model in models]) for i in range(len(KEYS)))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", *(f"**Warning:** {warning}\n" for warning in found["warnings"])]
    for way, values in found["gradient - random, Average"].items():
        lines.append(f"- {way}: gradient - random region: Average {difference(values)}")
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """Return mean ± standard deviation; the mean alone of one value."""
    mean = f"{statistics.fmean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def difference(values: Sequence[float]) -> str:
    """Return mean and interval of one of the three differences; the mean alone of one value."""
    mean, pairs = statistics.fmean(values), len(values)
    if pairs < 2:
        return f"{mean:+.2f}, 1 pair"
    half = float(stats.t.ppf(1 - 0.025 / len(WAYS), pairs - 1)) * statistics.stdev(values) / math.sqrt(pairs)
    return f"{mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}], {pairs} pairs"


def main(words: Sequence[str] | None = None) -> None:
    """Run the benches and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--run-file", default="builtin_lora")
    parser.add_argument("--targets", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], dest="changes")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(words)
    quiet_libraries()
    from scopewise.record import manifest

    rows, warnings = benches(given.folder, given.run_file, given.targets, given.changes)
    found = {**summary(rows), "warnings": warnings}
    config = load_config(given.run_file, given.changes)
    if given.out is not None:
        made = {**manifest(config, None), "targets": given.targets, "set": given.changes}
        write_json(given.out, {"manifest": made, "config": config.model_dump(mode="json"), **found})
    print(markdown(found))


if __name__ == "__main__":
    main()
