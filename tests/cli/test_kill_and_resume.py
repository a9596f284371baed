"""A `kill -9` at any moment, then `--resume`: the numbers of an undisturbed run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from forks import python

ROOT = Path(__file__).parents[2]
SETTINGS = [
    "model.tiny.width=32", "model.tiny.layers=2", "model.tiny.heads=2", "model.tiny.vocab_size=400",
    "finetune.num_train_epochs=3", "finetune.save_steps=2", "unlearn.num_train_epochs=0.5", "unlearn.save_steps=2",
    "evaluate.max_new_tokens=4", "evaluate.splits=[val]", "bench.methods=[ga_kl,memflex]",
]  # fmt: skip


def start(folder: Path, program: str | None = None) -> subprocess.Popen[bytes]:
    words = [program or python(), "-m", "scopewise", "demo", "--resume"]
    for setting in [*SETTINGS, f"run.dir={folder}"]:
        words += ["--set", setting]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def killed_when(folder: Path, ready: Callable[[], bool]) -> None:
    process = start(folder)
    end = time.monotonic() + 120
    while not ready() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    assert process.poll() is None, "it ended before the moment of the kill"
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_killed_three_times_it_ends_with_the_same_numbers(tmp_path: Path) -> None:
    straight, disturbed = tmp_path / "straight", tmp_path / "disturbed"
    process = start(straight)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()[-2000:]

    checkpoints = disturbed / "target.partial" / "checkpoints"
    killed_when(disturbed, lambda: (checkpoints / "checkpoint-4").exists())  # most likely half-written
    killed_when(disturbed, lambda: (disturbed / "oracle.partial").exists())
    killed_when(disturbed, lambda: any(disturbed.glob("models/ga_kl/paper/*.partial/checkpoints/checkpoint-2")))
    process = start(disturbed, sys.executable)  # another seed of hashes
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()[-2000:]

    def numbers(folder: Path) -> list[tuple[str, int, dict[str, float], int]]:
        rows = json.loads((folder / "results.json").read_text())["rows"]
        return [(row["method"], row["seed"], row["metrics"], row["cost"]["steps"]) for row in rows]

    assert numbers(disturbed) == numbers(straight)
    assert not list(disturbed.rglob("*.partial"))
    assert not list(disturbed.rglob("*.tmp"))
