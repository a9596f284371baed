"""What each optional kernel is worth: a step, scoring and generation with all of them, without each, and without any.

    python benchmarks/on_off.py --data ../shared/data/knowundo_privacy [--model FOLDER] [--rounds N] [--out FILE]

The same work in turns, in one process, on the CPU in float32 with one thread; ratios of median processor time. Before anything
is timed, all variants must give the same scores. Without `--model` the model is the tiny one, untrained. A kernel that is worth
less than 5 % of a step, of scoring and of generation has no place in `models/kernels/`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from scopewise.allocator import keep_freed_memory
from scopewise.data.rows import VAL
from scopewise.files import write_json
from scopewise.models.forward import Forward
from scopewise.models.generate import generate
from scopewise.models.kernels import NAMES, Kernels
from scopewise.models.score import score_pairs
from scopewise.record import manifest
from speed import Setup, make_trainer, prepare, sampled_steps, trainer_step, training

LARGEST_DIFFERENCE = 1e-4
VARIANTS = {"all": NAMES, **{f"without {name}": tuple(n for n in NAMES if n != name) for name in NAMES}, "none": ()}


def pieces(setup: Setup, folder: str, sizes: Mapping[str, int]) -> dict[str, Callable[[Forward], object]]:
    """Return the pieces of work, each of a forward with some kernels."""
    val = setup.rows(None, VAL)
    trainer = make_trainer(setup, folder)
    steps = sampled_steps(trainer, sizes["steps"])
    pairs = [item.pair for item in val[: sizes["rows"]]]
    prompts = [item.prompt_ids for item in val[: sizes["prompts"]]]

    def step(forward: Forward) -> None:
        trainer.forward = forward
        trainer.model.train()
        with training(trainer):
            for indices in steps:
                trainer_step(trainer, indices)
                trainer.model.zero_grad()
        trainer.model.eval()

    def scoring(forward: Forward) -> list[float]:
        scored = score_pairs(forward, pairs, description="score", moments=False)
        return [sum(s.log_probs) for s in scored]

    def generation(forward: Forward) -> None:
        generate(forward, setup.tokenizer, prompts, sizes["new_tokens"])

    return {"step": step, "scoring": scoring, "generation": generation}


def measured(setup: Setup, sizes: Mapping[str, int], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return the processor seconds of each piece of work under each variant."""
    abilities = setup.engine.forward.abilities
    forwards = {name: Forward(setup.model, abilities, Kernels(kernels)) for name, kernels in VARIANTS.items()}
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = pieces(setup, folder, sizes)
        plain = work["scoring"](forwards["none"])
        for name, forward in forwards.items():
            off = max(abs(a - b) for a, b in zip(plain, work["scoring"](forward), strict=True))  # type: ignore[call-overload]
            if off > LARGEST_DIFFERENCE:
                raise SystemExit(f"{name}: a log-probability differs by {off}")
        for what, run in work.items():
            times: dict[str, list[float]] = {name: [] for name in VARIANTS}
            run(forwards["all"])
            for number in range(rounds):
                for name, forward in forwards.items():
                    start = time.process_time()
                    run(forward)
                    times[name].append(time.process_time() - start)
                print(f"{what}: round {number + 1} of {rounds}", file=sys.stderr)
            found[what] = times
    return found


def ratios(found: Mapping[str, Mapping[str, list[float]]]) -> dict[str, dict[str, float]]:
    """Return by variant and piece the median seconds over those with all kernels."""
    return {
        name: {what: statistics.median(times[name]) / statistics.median(times["all"]) for what, times in found.items()}
        for name in VARIANTS
        if name != "all"
    }


def table(by_variant: Mapping[str, Mapping[str, float]]) -> str:
    """Return the Markdown table."""
    columns = list(next(iter(by_variant.values())))
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    lines += [
        f"| {name} | " + " | ".join(f"{values[c]:.2f}x" for c in columns) + " |" for name, values in by_variant.items()
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print a table, write the record."""
    parser = argparse.ArgumentParser(description="What each optional kernel is worth.")
    parser.add_argument("--data", required=True, help="folder of KnowUnDo's privacy rows")
    parser.add_argument("--model", default=None, help="folder of a model; none: the tiny one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=8, help="training steps of 16 rows")
    parser.add_argument("--rows", type=int, default=200, help="val rows that are scored")
    parser.add_argument("--prompts", type=int, default=64, help="val prompts that are continued")
    parser.add_argument("--new-tokens", type=int, default=24)
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    keep_freed_memory()
    setup = prepare(given.data, given.model, given.seed, threads=1)
    sizes = {key: getattr(given, key) for key in ("steps", "rows", "prompts", "new_tokens")}
    found = measured(setup, sizes, given.rounds)
    summary = ratios(found)
    if given.out is not None:
        origin = {"manifest": manifest(None, setup.benchmark.content_hash()), "seed": given.seed, "threads": 1}
        model: dict[str, Any] = {"parameters": setup.model.num_parameters(), "dtype": str(torch.float32)}
        write_json(given.out, {**origin, **sizes, "model": model, "processor_seconds": found, "ratios": summary})
    print(table(summary))


if __name__ == "__main__":
    main()
