"""How well does each localizer find weights that are known to hold the forget scope?

    python benchmarks/known_truth.py [--seeds 3] [--fraction 0.1] [--out FILE]

A tiny model learns the retain scope of the built-in benchmark with all its parameters. Then a random set of units of its
linear layers (modules, columns, or single weights) is drawn, and the forget scope is taught with *only those* trainable
(retain rows go along, so that they are not lost): they are the truth. Each localizer scores all units of the model that
came out; reported are the area under the ROC curve of its scores against the truth (.5 is chance) and the share of the
truth among as many of its highest units (chance is the fraction drawn), beside `random`. The set-up is that of Chang et
al. (arXiv:2311.09060), Lee et al. (arXiv:2505.16252) and LACUNA (arXiv:2607.02513), with the truth injected at the
granularity that is asked for: against single weights drawn evenly, any choice of whole modules has an area of .5 by
construction.

Markdown on stdout, JSON in `--out`, progress on stderr. CPU or accelerator, float32.
"""

from __future__ import annotations

import argparse
import copy
import random
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scopewise.cli import quiet_libraries
from scopewise.config import TinyConfig
from scopewise.data.load import load_benchmark
from scopewise.data.prompt import Encoded, encode
from scopewise.data.rows import FORGET, RETAIN
from scopewise.files import write_json
from scopewise.localizers import LOCALIZERS
from scopewise.localizers.base import Scopes, build_region, highest, localizer_of, unit_means
from scopewise.methods.cross_entropy import Retrain
from scopewise.models.engine import Engine
from scopewise.models.matrices import matrices
from scopewise.models.parallel.processes import default_device
from scopewise.models.tiny import build_tiny, tokenizer_texts
from scopewise.record import manifest
from scopewise.region import Region
from scopewise.training.arguments import UnlearningConfig
from scopewise.training.progress import quiet
from scopewise.training.trainer import UnlearningTrainer

UNITS = ("module", "column", "weight")
SCORED = [name for name in LOCALIZERS if name not in ("random", "all", "named", "grail")]


def train(
    model: Any, tokenizer: Any, items: list[Encoded], epochs: float, rate: float, region: Region | None
) -> nn.Module:
    """Teach rows to the model, in the region alone."""
    with tempfile.TemporaryDirectory() as folder:
        args = UnlearningConfig(
            folder, num_train_epochs=epochs, learning_rate=rate, per_device_train_batch_size=32, disable_tqdm=True
        )
        trainer = UnlearningTrainer(
            model, Retrain(), args, forget_dataset=items, processing_class=tokenizer, region=region or "all"
        )
        quiet(trainer)
        trainer.train()
        return trainer.accelerator.unwrap_model(trainer.model).eval()


def draw(model: nn.Module, unit: str, fraction: float, seed: int) -> dict[str, Tensor]:
    """Draw the truth: boolean unit tensors, a `fraction` of all units, evenly over the model."""
    units = unit_means({n: p.detach() for n, p in matrices(model).items()}, unit, {})
    if unit == "module":  # few, of different size: so many modules, not so many parameters
        names = random.Random(seed).sample(sorted(units), max(1, round(fraction * len(units))))
        return {name: torch.full_like(value, name in names, dtype=torch.bool) for name, value in units.items()}
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(value.shape, generator=generator) < fraction for name, value in units.items()}


def area(scores: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> float:
    """Return the area under the ROC curve: the chance that a true unit scores higher than another; ties count half."""
    values = np.concatenate([scores[name].flatten().cpu().numpy() for name in truth])
    wanted = np.concatenate([truth[name].flatten().cpu().numpy() for name in truth])
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positive = int(wanted.sum())
    return float((ranks[wanted].sum() - positive * (positive + 1) / 2) / (positive * (len(wanted) - positive)))


def recall(scores: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> float:
    """Return the share of the truth among as many of the highest units."""
    count = sum(int(mask.sum()) for mask in truth.values())
    found = highest({name: scores[name].flatten() for name in truth}, count)
    return sum(int((found[name] & truth[name].flatten()).sum()) for name in truth) / count


def measure(engine: Engine, unit: str, truth: Mapping[str, Tensor], scopes: Scopes) -> dict[str, dict[str, float]]:
    """Return area and recall of every localizer, and of scores drawn at random."""
    found = {}
    for name in SCORED:
        scores = localizer_of(name, {"unit": unit}).unit_scores(engine, scopes)
        assert scores is not None
        scores = {key: value.cpu() for key, value in scores.items()}
        found[name] = {"auc": area(scores, truth), "recall": recall(scores, truth)}
    generator = torch.Generator().manual_seed(1000 + scopes.seed)  # not the one that drew the truth
    chance = {name: torch.rand(mask.shape, generator=generator) for name, mask in truth.items()}
    found["random"] = {"auc": area(chance, truth), "recall": recall(chance, truth)}
    return found


def main() -> None:
    """Run all units and seeds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--fraction", type=float, default=0.1, help="share of the units that learn the forget scope")
    parser.add_argument("--epochs", type=float, default=40, help="of the injection")
    parser.add_argument("--rate", type=float, default=4e-3, help="learning rate of the injection")
    parser.add_argument("--out", default=str(Path(__file__).parent / "results" / "known_truth.json"))
    arguments = parser.parse_args()
    quiet_libraries()
    benchmark = load_benchmark("builtin")
    base: Any
    base, tokenizer = build_tiny(tokenizer_texts(benchmark.rows), TinyConfig(), 0)
    items = {scope: encode(benchmark.select(scope), tokenizer, eos=True) for scope in (FORGET, RETAIN)}
    forget, retain = (encode(benchmark.select(scope), tokenizer) for scope in (FORGET, RETAIN))
    before = train(base.to(default_device()), tokenizer, items[RETAIN], 60, 2e-3, None)
    runs: list[dict[str, Any]] = []
    for unit in UNITS:
        for seed in range(arguments.seeds):
            model = copy.deepcopy(before)
            truth = draw(model, unit, arguments.fraction, seed)
            region = build_region("truth", {"unit": unit, "seed": seed}, matrices(model), truth, unit, {})
            model = train(model, tokenizer, [*items[FORGET], *items[RETAIN]], arguments.epochs, arguments.rate, region)
            engine = Engine(model, tokenizer)
            learnt = {"forget": engine.hit_rate(forget), "retain": engine.hit_rate(retain)}
            found = measure(engine, unit, truth, Scopes(forget, retain, seed))
            runs.append({"unit": unit, "seed": seed, "fraction": region.fraction, "accuracy": learnt, "found": found})
    document = {
        "manifest": manifest(None, benchmark.content_hash()),
        "arguments": {key: value for key, value in vars(arguments).items() if key != "out"},
        "runs": runs,
    }
    write_json(arguments.out, document)
    print(table(runs))


def table(runs: list[dict[str, Any]]) -> str:
    """Return the Markdown table: area and recall, mean ± standard deviation over seeds."""
    lines = ["| localizer | " + " | ".join(f"{unit}: AUC | {unit}: recall" for unit in UNITS) + " |"]
    lines.append("|---|" + "---:|" * 2 * len(UNITS))
    for name in [*SCORED, "random"]:
        cells = []
        for unit in UNITS:
            for what in ("auc", "recall"):
                values = [run["found"][name][what] for run in runs if run["unit"] == unit]
                spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
                cells.append(f"{statistics.fmean(values):.3f}{spread}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    learnt = [statistics.fmean(run["accuracy"][scope] for run in runs) for scope in ("forget", "retain")]
    fraction = statistics.fmean(run["fraction"] for run in runs)
    lines += [
        "",
        f"Truth: {100 * fraction:.0f} % of the parameters on average; after the injection the model answers "
        f"{100 * learnt[0]:.1f} % of the forget and {100 * learnt[1]:.1f} % of the retain tokens.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
