"""DeepSpeed ZeRO-3 on two processes (gloo, on the CPU) does what one process does, also after a loss, or refuses."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from test_processes import COMMON, CONFIGS, ROOT, finish, same, start, target  # noqa: F401

from scopewise.region import Region

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed"),
]


def start_zero(model: Path, folder: Path, method: str, *more: str) -> subprocess.Popen[bytes]:
    launch = [
        "--config_file",
        str(CONFIGS / "deepspeed_zero3.yaml"),
        "--num_processes",
        "2",
        "--main_process_port",
        "0",
    ]
    words = [sys.executable, "-m", "accelerate.commands.launch", *launch, str(Path(__file__).with_name("zero.py"))]
    words += ["unlearn", "--method", method, "--model", str(model)]
    for setting in [*COMMON, f"run.dir={folder}"]:
        words += ["--set", setting]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    return subprocess.Popen([*words, *more], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run_both(model: Path, folder: Path, method: str, *more: str) -> tuple[Path, Path]:
    for process in (start(model, folder / "1", method, 1, *more), start_zero(model, folder / "2", method, *more)):
        finish(process)
    return folder / "1", folder / "2"


@pytest.mark.parametrize("method", ["memflex", "ga_kl", "rmu"])
def test_zero_does_what_one_process_does(method: str, target: Path, tmp_path: Path) -> None:  # noqa: F811
    """A region of whole matrices, a reference that is the adapter switched off, and a loss on states."""
    micro = ("--set", "unlearn.batch_size=8", "--set", "unlearn.gradient_accumulation_steps=2")
    same(*run_both(target, tmp_path, method, *micro), method)


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("grail", ()),  # two regions, one for each term: two backwards and one step
        (
            "ga_descent",
            (
                "unlearn.localizer=weight_attribution", "localize.localizer_args={threshold: fraction, unit: weight}",
                "unlearn.parameters=all",
            ),
        ),
    ],
)  # fmt: skip
def test_masks_in_parts(method: str, more: tuple[str, ...], target: Path, tmp_path: Path) -> None:  # noqa: F811
    """Gradients are masked before they are spread: what lies outside a region is to the bit what it was."""
    both = run_both(target, tmp_path, method, *[word for setting in more for word in ("--set", setting)])
    made = [next((folder / "models").rglob("region.json")).parent for folder in both]
    curves = [json.loads((folder / "stage.json").read_text())["curve"] for folder in made]
    assert curves[0][-1] == pytest.approx(curves[1][-1], rel=1e-5)
    weights = [load_file(next(folder.glob("*model.safetensors"))) for folder in made]
    assert weights[0].keys() == weights[1].keys()
    assert max(float((weights[0][n] - weights[1][n]).abs().max()) for n in weights[0]) < 1e-5
    if method == "grail":
        return
    before, region = load_file(target / "model.safetensors"), Region.load(made[1] / "region.json")
    masks = [(entry.name, region.mask(entry.name, None)) for entry in region.entries]
    assert any(mask is not None and 0 < mask.sum() < mask.size for _, mask in masks)
    for name, mask in masks:
        moved = before[name] != weights[1][name]
        inside = torch.zeros_like(moved) if mask is None else torch.from_numpy(mask)
        assert bool(moved.any()) == bool(inside.any())
        assert not bool((moved & ~inside).any())


def test_a_lost_worker_and_resume_in_parts(target: Path, tmp_path: Path) -> None:  # noqa: F811
    """The dual variable, the optimizer's parts and the scheduler come back from the checkpoint."""
    straight = start(target, tmp_path / "1", "pdu", 1)
    launcher = start_zero(target, tmp_path / "2", "pdu")
    checkpoint = tmp_path / "2" / "models" / "pdu" / "run" / "seed0.partial" / "checkpoints" / "checkpoint-2"
    end = time.monotonic() + 250
    while not (checkpoint / "cost.json").exists() and launcher.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    workers = [child for child in psutil.Process(launcher.pid).children() if "zero.py" in " ".join(child.cmdline())]
    assert len(workers) == 2
    workers[-1].send_signal(signal.SIGKILL)
    launcher.communicate(timeout=120)
    assert launcher.returncode != 0
    finish(start_zero(target, tmp_path / "2", "pdu", "--resume"))
    finish(straight)
    same(tmp_path / "1", tmp_path / "2", "pdu", resumed=True)


def test_what_it_cannot_do_is_refused(target: Path, tmp_path: Path) -> None:  # noqa: F811
    """Before anything is trained: BLADE's inner steps would be left out, and the result be another."""
    launcher = start_zero(target, tmp_path / "2", "blade")
    _, errors = launcher.communicate(timeout=120)
    assert launcher.returncode != 0
    assert "exitcode  : 2" in errors.decode()
    assert "scopewise: unlearn.method_args.inner_steps: 3, under DeepSpeed" in errors.decode()
    assert not (tmp_path / "2").exists()
