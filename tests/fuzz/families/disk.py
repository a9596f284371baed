"""A disk that is full while something is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

from ..inputs import Family, Input

_WRITE = (
    ("finetune", "run.yaml"),
    ("bench", "run.yaml"),
    ("unlearn", "run.yaml", "--model", "model"),
    ("unlearn", "run.yaml", "--model", "model", "--set", "unlearn.parameters=all"),
    (
        "localize",
        "run.yaml",
        "--model",
        "model",
        "--localizer",
        "random",
        "--set",
        "localize.localizer_args.unit=weight",
    ),
    ("evaluate", "model", "run.yaml", "--output", "out.json", "--cache", "kept"),
    ("report", "runs/done"),
    ("attack", "runs/done", "--attack", "few_shot"),
)


def _make(ground: Path, random: Random) -> Iterator[Input]:
    # No command gets by with the least; how many files fit into the others depends on what it writes.
    smallest = {
        "finetune": 2000,
        "bench": 2000,
        "unlearn": 2000,
        "localize": 700,
        "evaluate": 300,
        "report": 5000,
        "attack": 200,
    }
    while True:
        command = random.choice(_WRITE)
        limit = random.choice([0, 10, 100, smallest[command[0]]])
        yield Input(
            f"a file may have {limit} bytes", command, begins=True, largest_file=min(limit, smallest[command[0]])
        )
        if command[0] in ("finetune", "bench", "unlearn"):
            weights = (ground / "model/model.safetensors").stat().st_size
            limit = random.randrange(5000, weights // 2)
            if command[0] != "unlearn" or "unlearn.parameters=all" in command:
                yield Input(f"a file may have {limit} bytes", command, begins=True, largest_file=limit)


FAMILIES = (Family("disk", _make, _WRITE[3:4]),)
