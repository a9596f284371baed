"""What the time of a localization, an unlearning step and a scoring is spent on: `speed.py`'s side of scopewise, profiled.

    python benchmarks/shares.py --data ../shared/data/knowundo_privacy [--threads N] [--out FILE]

The profiler's own cost is in it, so shares are read here and seconds in `speed.py`'s results. Markdown on stdout, JSON in
`--out`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from scopewise.allocator import keep_freed_memory
from scopewise.data.rows import FORGET, TRAIN, VAL
from scopewise.evaluation import score
from scopewise.files import write_json
from scopewise.localizers.gradient import Gradient
from scopewise.record import manifest
from speed import Setup, make_trainer, prepare, sample, sampled_steps, trainer_step, training

_ATTENTION = "aten::_scaled_dot_product_flash_attention_for_cpu"

KINDS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm"),
    "attention": (_ATTENTION, f"{_ATTENTION}_backward"),
    "silu and the products around it, sums, norms, rotations": (
        "aten::mul", "aten::mul_", "aten::add", "aten::add_", "aten::silu", "aten::silu_backward", "aten::addcmul_",
        "aten::linalg_vector_norm", "aten::pow", "aten::rsqrt_", "aten::div_", "aten::neg",
    ),
    "softmax over the vocabulary, largest token": (
        "aten::amax", "aten::max", "aten::argmax", "aten::exp", "aten::exp_", "aten::sub", "aten::sum", "aten::log",
        "aten::gather", "aten::scatter_add_",
    ),
    "copies and fills": ("aten::copy_", "aten::fill_", "aten::cat", "aten::index_select", "aten::index_add_"),
}  # fmt: skip
"""Which operations are what; the rest is what surrounds them: their calls, the graph of the backward, views, indices."""


def shares(work: Callable[[], object]) -> dict[str, float]:
    """Return the share (0-1) of each kind of operation in the processor time of a piece of work, its second run."""
    work()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        work()
    kind_of = {name: kind for kind, names in KINDS.items() for name in names}
    times: Counter[str] = Counter()
    for event in profiled.key_averages():
        times[kind_of.get(event.key, "the rest")] += event.self_cpu_time_total
    total = sum(times.values())
    return {kind: times[kind] / total for kind in (*KINDS, "the rest")}


def pieces(setup: Setup, folder: str) -> dict[str, Callable[[], object]]:
    """Return the pieces of work that `speed.py` times: 64 forget rows, eight steps, all val rows."""
    rows, val = sample(setup.rows(FORGET, TRAIN), 64, setup.seed), setup.rows(None, VAL)
    trainer = make_trainer(setup, folder)
    trainer.model.eval()
    steps = sampled_steps(trainer, 8)
    localizer = Gradient(corrupt="inputs", repeats=3)

    def unlearn() -> None:
        with training(trainer):
            for indices in steps:
                trainer_step(trainer, indices)
                trainer.model.zero_grad()

    return {
        "localization": lambda: localizer.gradients(setup.engine, rows, setup.seed),
        "unlearning step": unlearn,
        "scoring": lambda: score(setup.engine, val, moments=False),
    }


def table(found: dict[str, dict[str, float]]) -> str:
    """Return the Markdown table."""
    lines = ["| % of the time | " + " | ".join(found) + " |", "|---|" + "---:|" * len(found)]
    for kind in (*KINDS, "the rest"):
        lines.append(f"| {kind} | " + " | ".join(f"{100 * of[kind]:.0f}" for of in found.values()) + " |")
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description="What the time is spent on.")
    parser.add_argument("--data", required=True, help="folder with the privacy rows of KnowUnDo")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default=str(Path(__file__).parent / "results" / "shares.json"))
    return parser.parse_args(arguments)


def main() -> None:
    """Profile all three."""
    arguments = parse()
    keep_freed_memory()
    setup = prepare(arguments.data, None, arguments.seed, arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        found = {what: shares(work) for what, work in pieces(setup, folder).items()}
    document = {"manifest": manifest(None, setup.benchmark.content_hash()), "seed": arguments.seed}
    write_json(arguments.out, {**document, "threads": arguments.threads, "shares": found})
    print(table(found))


if __name__ == "__main__":
    main()
