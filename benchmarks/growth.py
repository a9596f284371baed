"""How time and memory of an unlearning step grow, and a cost model fitted to that.

    python benchmarks/growth.py [--device cpu|cuda] [--out FOLDER] [--plots FOLDER]

One thing at a time: tokens per step, share of the blocks that is trained, width of the model, number of processes. Writes
`growth.json` (with its origin) and one SVG plot for each. The model is t = overhead + operations / rate: `overhead` is
what a step costs whatever it does, `rate` what the device reaches on this kind of work. Random weights, GA + descent.

On the CPU seconds are the process's own processor time, with one thread: other work on the machine does not count, and on
a machine that does nothing else wall time is the same. Both are in the results.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from scopewise.cost import Cost
from scopewise.data.rows import FORGET, RETAIN
from scopewise.files import write_json, write_text
from scopewise.models.flops import matrix_rate
from scopewise.models.matrices import matrices
from scopewise.record import manifest
from scopewise.region import Entry, Region, module_of
from scopewise.training.arguments import UnlearningConfig
from scopewise.training.progress import TrainingProgress
from scopewise.training.trainer import UnlearningTrainer
from shapes import SHAPES, Shape, adapted, random_model, random_rows, some_tokenizer

STEPS = 7
ROWS = 16
SERIES = ("tokens", "fraction", "width", "processes")


class ProcessorTime(TrainerCallback):
    """Processor seconds of each step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._start = time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the clock."""
        self.seconds.append(time.process_time() - self._start)


def measured(
    shape: Shape, device: torch.device, *, tokens: int = 45, fraction: float = 1.0, processes: int = 1, seed: int = 0
) -> dict[str, Any]:
    """Return time, work and memory of steps of 16 rows: median, without the first."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = adapted(random_model(shape, dtype, device, seed), seed, trained=True)
    names = list(matrices(model))
    lowest = round(shape.layers * (1 - fraction))
    entries = [Entry(n, 1, int(n.split(".layers.")[1].split(".")[0]) >= lowest, module_of(n)) for n in names]
    cost, processor = Cost(), ProcessorTime()
    with tempfile.TemporaryDirectory() as folder, cost:
        trainer = UnlearningTrainer(
            model,
            method="ga_descent",
            args=UnlearningConfig(
                output_dir=folder,
                max_steps=STEPS,
                per_device_train_batch_size=ROWS // processes,
                seed=seed,
                disable_tqdm=True,
                logging_strategy="no",
            ),
            forget_dataset=random_rows(ROWS * STEPS // 2, shape.vocab, FORGET, seed, tokens),
            retain_dataset=random_rows(ROWS * STEPS // 2, shape.vocab, RETAIN, seed, tokens),
            processing_class=some_tokenizer(),
            region=Region("by_block", {}, tuple(entries)),
            callbacks=[TrainingProgress("growth", cost), processor],
        )
        trainer.train()
    rates = cost.rates()
    steps = len(cost.step_seconds)
    wall = statistics.median(cost.step_seconds[1:])
    return {
        "seconds_per_step": wall if device.type == "cuda" else statistics.median(processor.seconds[1:]),
        "wall_seconds_per_step": wall,
        "tokens_per_step": rates["tokens"] / steps,
        "operations_per_step": cost.work.operations * rates["processes"] / steps,
        "peak_memory_bytes": rates["peak_memory_bytes"],
        "processes": rates["processes"],
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def in_a_process(device: str, shape: Shape, count: int = 1, **what: Any) -> dict[str, Any]:
    """Measure in a process of its own, or several: memory is then of this measurement alone."""
    gc.collect()
    given = json.dumps({"shape": vars(shape), "device": device, "what": {**what, "processes": count}})
    words = [sys.executable]
    if count > 1:
        words += ["-m", "torch.distributed.run", "--nproc_per_node", str(count), "--master_port", "29587"]
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    done = subprocess.run([*words, __file__, "--one", given], capture_output=True, text=True, env=environment)
    found = [line for line in done.stdout.splitlines() if line.startswith('{"seconds_per_step"')]
    if done.returncode or not found:
        raise SystemExit(f"{given} failed:\n{done.stderr[-2000:]}")
    return json.loads(found[0])


def grid(small: bool) -> dict[str, tuple[Shape, list[Any]]]:
    """Return what is varied: series → base shape and values."""
    base = SHAPES["tiny"] if small else SHAPES["small"]
    widths = [64, 128] if small else [128, 256, 384, 512]
    return {
        "tokens": (base, [20, 60] if small else [20, 45, 90, 180]),
        "fraction": (base, [0.5, 1.0] if small else [0.125, 0.25, 0.5, 0.75, 1.0]),
        "width": (base, widths),
        "processes": (base, [1, 2]),
    }


def wider(shape: Shape, width: int) -> Shape:
    """Return the shape at another width; heads of 64."""
    return Shape(width, width * 43 // 16 // 8 * 8, shape.layers, max(1, width // 64), shape.vocab)


def fit(points: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return overhead (seconds) and rate (operations per second) of t = overhead + operations / rate, and how well it fits.

    Least squares of relative errors, over the points of one process; neither may be negative.
    """
    alone = [p for p in points if p["processes"] == 1]
    seconds = np.array([p["seconds_per_step"] for p in alone])
    design = np.stack([np.ones(len(alone)), [p["operations_per_step"] for p in alone]], axis=1)
    overhead, per_operation = np.linalg.lstsq(design / seconds[:, None], np.ones(len(alone)), rcond=None)[0]
    if overhead < 0:
        overhead = 0.0
        per_operation = float(np.median(seconds / design[:, 1]))
    predicted = design @ np.array([overhead, per_operation])
    return {
        "overhead_seconds": float(overhead),
        "operations_per_second": float(1 / per_operation),
        "largest_relative_error": float(np.abs(predicted / seconds - 1).max()),
        "points": len(alone),
    }


def plot(title: str, axis: str, lines: dict[str, list[tuple[float, float]]]) -> str:
    """Return an SVG of points joined by lines, each line scaled to its own largest value, which is written beside it."""
    width, height, left, top = 520, 300, 50, 40
    xs = [x for points in lines.values() for x, _ in points]
    low, high = min(xs), max(xs)
    colours = ("#1b6ca8", "#c4532b")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width + 180} {height + 90}" font-family="sans-serif" '
        'font-size="13">',
        f'<rect width="100%" height="100%" fill="white"/><text x="{left}" y="24" font-size="15">{title}</text>',
        f'<path d="M{left} {top}V{top + height}H{left + width}" fill="none" stroke="#444"/>',
        f'<text x="{left + width / 2}" y="{top + height + 40}" text-anchor="middle">{axis}</text>',
    ]
    for x in sorted(set(xs)):
        at = left + 10 + (width - 20) * (x - low) / max(1e-9, high - low)
        parts.append(f'<text x="{at:.0f}" y="{top + height + 18}" text-anchor="middle">{x:g}</text>')
    for number, (name, points) in enumerate(lines.items()):
        largest = max(y for _, y in points)
        places = [
            (left + 10 + (width - 20) * (x - low) / max(1e-9, high - low), top + height - (height - 20) * y / largest)
            for x, y in points
        ]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        colour = colours[number % len(colours)]
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in places]
        y = top + 20 + 40 * number
        parts.append(f'<text x="{left + width + 10}" y="{y}" fill="{colour}">{name}</text>')
        parts.append(f'<text x="{left + width + 10}" y="{y + 16}" fill="{colour}">top: {largest:.3g}</text>')
    parts.append(f'<text x="{left - 8}" y="{top + height}" text-anchor="end">0</text></svg>')
    return "\n".join(parts) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all series and write results and plots."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--small", action="store_true", help="two points of a tiny model each")
    parser.add_argument("--out", default=str(Path(__file__).parent / "results"))
    parser.add_argument("--plots", default=str(Path(__file__).parents[1] / "docs" / "growth"))
    parser.add_argument("--one", help=argparse.SUPPRESS)  # what a measurement starts itself with
    given = parser.parse_args(arguments)
    if given.one:
        one = json.loads(given.one)
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        found = measured(Shape(**one["shape"]), torch.device(one["device"]), **one["what"])
        if os.environ.get("RANK", "0") == "0":
            print(json.dumps(found))
        return
    out = Path(given.out)
    device = torch.device(given.device)
    dtype = torch.bfloat16 if given.device == "cuda" else torch.float32
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    series: dict[str, list[dict[str, Any]]] = {}
    for name, (base, values) in grid(given.small).items():
        series[name] = []
        for value in values:
            shape = wider(base, value) if name == "width" else base
            what = {name: value} if name in ("tokens", "fraction") else {}
            count = value if name == "processes" else 1
            if given.small and count == 1:  # a new process takes longer than the measurement
                point = {name: value, **measured(shape, device, **what)}
            else:
                point = {name: value, **in_a_process(given.device, shape, count, **what)}
            print(f"{name} {value}: {point['seconds_per_step']:.3f} s", file=sys.stderr)
            series[name].append(point)
    points = [point for of_series in series.values() for point in of_series]
    name = torch.cuda.get_device_name() if given.device == "cuda" else "cpu"
    document = {
        "manifest": {**manifest(None, None), "device": name},
        "dtype": str(dtype).removeprefix("torch."),
        "threads_per_process": int(os.environ.get("OMP_NUM_THREADS", "1")),
        "rows_per_step": ROWS,
        "ceiling_flops_per_second": matrix_rate(device, dtype),
        "fit": fit(points),
        "series": series,
    }
    write_json(out / "growth.json", document)
    axes = {
        "tokens": "tokens of a row, mean",
        "fraction": "share of the blocks that is trained, from the top",
        "width": "width of the model",
        "processes": "processes that share a step of 16 rows",
    }
    for key in SERIES:
        lines = {
            "s per step": [(float(p[key]), float(p["seconds_per_step"])) for p in series[key]],
            "peak GB of a process": [(float(p[key]), p["peak_memory_bytes"] / 1e9) for p in series[key]],
        }
        write_text(Path(given.plots) / f"{key}.svg", plot(f"An unlearning step against {key}", axes[key], lines))
    print(json.dumps(document["fit"]))


if __name__ == "__main__":
    main()
