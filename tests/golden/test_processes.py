"""Two processes (gloo, on the CPU) do what one does: the same region, losses, weights and scores; also after a loss."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from accelerate.commands.config.config_args import ClusterConfig
from safetensors.torch import load_file

from engines import forward_of
from forks import python
from often import often
from scopewise.config import LoraSection
from scopewise.models.adapters import lora_config
from scopewise.models.load import save_model
from scopewise.models.reference import frozen_reference
from scopewise.region import Region
from scopewise.training.sampler import PairedSampler, Rows, parts_by_length

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "src" / "scopewise" / "configs" / "accelerate"
COMMON = [
    "lora.lora_dropout=0", "lora.r=2", "unlearn.batch_size=16", "unlearn.num_train_epochs=1.5", "unlearn.learning_rate=1e-3",
    "unlearn.save_steps=2", "evaluate.splits=[val]", "evaluate.direct_splits=[]", "evaluate.max_new_tokens=2",
    "localize.max_tokens=1024",
]  # fmt: skip


@pytest.fixture(scope="module")
def target(_tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("target")
    save_model(*_tiny, folder)
    return folder


PROGRAMS = {"ddp": ["-m", "scopewise"], "fsdp2": [str(Path(__file__).with_name("fsdp2_on_cpu.py"))]}
"""What `accelerate launch` starts with each configuration."""


def start(
    target: Path,
    folder: Path,
    method: str,
    processes: int,
    *more: str,
    how: str = "ddp",
    launcher: str | None = None,
) -> subprocess.Popen[bytes]:
    words = [python(), "-m", "scopewise"]
    if processes > 1:
        launch = ["--config_file", str(CONFIGS / f"{how}.yaml"), "--num_processes", str(processes)]
        words = [
            launcher or python(),
            "-m",
            "accelerate.commands.launch",
            *launch,
            "--main_process_port",
            "0",
            *PROGRAMS[how],
        ]
    words += ["unlearn", "--method", method, "--model", str(target)]
    for setting in [*COMMON, f"run.dir={folder}"]:
        words += ["--set", setting]
    words += more
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHON_EXEC": python()}
    return subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()[-3000:]


def same(one: Path, two: Path, method: str, resumed: bool = False) -> None:
    """Region, losses, gradient norms, weights within 1e-5, and measures.

    A loss that is logged is the mean since the last log, or since a resumption.
    """
    a, b = (folder / "models" / method / "run" / "seed0" for folder in (one, two))
    if (a / "region.json").exists():
        first, second = Region.load(a / "region.json"), Region.load(b / "region.json")
        assert first.names == second.names
        assert 0 < len(first.names) < len(first.entries)
        for x, y in zip(first.entries, second.entries, strict=True):
            assert x.magnitude == pytest.approx(y.magnitude, rel=1e-5)
    made = [json.loads((folder / "stage.json").read_text()) for folder in (a, b)]
    assert len(made[0]["curve"]) == len(made[1]["curve"]) > 0
    for x, y in zip(made[0]["curve"], made[1]["curve"], strict=True):
        keys = [key for key in x if key != "loss" or not resumed]
        assert [x[k] for k in keys] == pytest.approx([y[k] for k in keys], rel=1e-5, abs=1e-5)
    assert [m["cost"]["processes"] for m in made] == [1, 2]
    weights = [load_file(next(folder.glob("*model.safetensors"))) for folder in (a, b)]
    assert weights[0].keys() == weights[1].keys()
    if (a / "adapter_model.safetensors").exists():
        assert any(bool(value.any()) for name, value in weights[0].items() if "lora_B" in name)
    assert max(float((weights[0][n] - weights[1][n]).abs().max()) for n in weights[0]) < 1e-5
    values = [json.loads(folder.with_name("seed0.evaluation.json").read_text())["values"] for folder in (a, b)]
    for key in ("unlearn_success/val", "perplexity/retain_val"):
        assert values[0][key]["value"] == pytest.approx(values[1][key]["value"], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("method", often(["memflex", "rmu", "npo+sam+inner_relearning"], {"rmu"}))
def test_two_processes_do_what_one_does(method: str, target: Path, tmp_path: Path) -> None:
    """RMU's loss is on states that no forward returns. 60 forget rows in steps of 8: the last one is filled."""
    both = [start(target, tmp_path / str(n), method, n) for n in (1, 2)]
    for process in both:
        finish(process)
    same(tmp_path / "1", tmp_path / "2", method)
    assert not list((tmp_path / "2").rglob("*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize("method", often(["memflex", "ga_kl", "npo", "rmu", "pdu"], {"memflex"}))
def test_two_processes_that_hold_half_of_the_model_do_what_one_does(method: str, target: Path, tmp_path: Path) -> None:
    """FSDP2, from localization to scoring: a region's masks, the adapter switched off, a cached reference, states, a budget."""
    both = [start(target, tmp_path / str(n), method, n, how="fsdp2") for n in (1, 2)]
    for process in both:
        finish(process)
    same(tmp_path / "1", tmp_path / "2", method)
    assert not list((tmp_path / "2").rglob("*.partial"))


@pytest.mark.slow
def test_all_parameters_of_a_model_held_in_halves(target: Path, tmp_path: Path) -> None:
    """Rows of matrices may change, by gradients in several groups; micro-batches; what is outside stays, decay or not."""
    more = ["unlearn.parameters=all", "unlearn.weight_decay=0.1", "unlearn.gradient_accumulation_steps=2"]
    more += ["localize.localizer_args={unit: row, threshold: fraction, fraction: 0.3, gradient_gigabytes: 0.0001}"]
    more += ["unlearn.batch_size=8"]
    settings = [word for setting in more for word in ("--set", setting)]
    both = [start(target, tmp_path / str(n), "memflex", n, *settings, how="fsdp2") for n in (1, 2)]
    for process in both:
        finish(process)
    same(tmp_path / "1", tmp_path / "2", "memflex")
    folder = tmp_path / "2" / "models" / "memflex" / "run" / "seed0"
    before, after = load_file(target / "model.safetensors"), load_file(folder / "model.safetensors")
    for entry in Region.load(folder / "region.json").entries:
        moved = (before[entry.name] != after[entry.name]).any(1)
        assert int(moved.sum()) * before[entry.name].shape[1] <= (entry.selected or 0)


@pytest.mark.slow
@pytest.mark.parametrize("how", often(["ddp", "fsdp2"], {"fsdp2"}))
def test_a_lost_worker_and_resume(how: str, target: Path, tmp_path: Path) -> None:
    """One of two workers is killed after a checkpoint: all stop, and --resume ends where an undisturbed run ends."""
    straight = start(target, tmp_path / "1", "ga_descent", 1)
    launcher = start(target, tmp_path / "2", "ga_descent", 2, how=how, launcher=sys.executable)
    checkpoint = tmp_path / "2" / "models" / "ga_descent" / "run" / "seed0.partial" / "checkpoints" / "checkpoint-2"
    end = time.monotonic() + 200
    while not (checkpoint / "cost.json").exists() and launcher.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    workers = psutil.Process(launcher.pid).children(recursive=True)
    assert workers
    workers[-1].send_signal(signal.SIGKILL)
    launcher.communicate(timeout=120)
    assert launcher.returncode != 0
    assert not (tmp_path / "2" / "models" / "ga_descent" / "run" / "seed0").exists()
    finish(start(target, tmp_path / "2", "ga_descent", 2, "--resume", how=how))
    finish(straight)
    same(tmp_path / "1", tmp_path / "2", "ga_descent", resumed=True)


def in_halves(program: str, script: str, *arguments: str, **variables: str) -> Any:
    """Return the JSON that two processes print last, with the variables that `accelerate launch` sets for FSDP2."""
    words = [program, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        **variables,
    }
    words += [str(Path(__file__).with_name(script)), *arguments]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(("how", "most"), [("keep", 0.6), ("train", 1.4)])
def test_no_process_has_the_whole_model_in_memory_of_its_own(how: str, most: float, tmp_path: Path) -> None:
    """As a multiple of the bytes in the file, which is in 16 bits: half of them, or in float32 a half of twice as many.

    Besides these a block. What has not been spread yet are pages of the file, which all processes share.
    """
    freed = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    found = in_halves(sys.executable, "host_memory.py", str(tmp_path / "model"), how, **freed)
    assert most - 0.25 < found["taken"] < most


@pytest.mark.slow
def test_what_each_process_holds_of_a_sharded_model() -> None:
    """FSDP2: half of the parameters, before and after a forward; and the gradients of one that holds all."""
    found = in_halves(python(), "sharded.py")
    assert found["largest"] > 1e-3
    assert found["worst"] < 1e-6
    assert found["held"] == pytest.approx([0.5, 0.5], abs=0.01)


def test_the_configs_are_what_accelerate_reads() -> None:
    """Every key is one it knows; it refuses others."""
    read = {path.stem: ClusterConfig.from_yaml_file(str(path)) for path in sorted(CONFIGS.glob("*.yaml"))}
    assert sorted(read) == ["ddp", "deepspeed_zero3", "fsdp2"]
    assert [str(config.distributed_type.value) for config in read.values()] == ["MULTI_GPU", "DEEPSPEED", "FSDP"]


def test_a_micro_batch_in_parts_of_similar_length_is_the_same_step(tiny: Any, make_trainer: Any, encoded: Any) -> None:
    """Long rows and short ones: two parts, the same gradient; a batch of one length stays whole."""
    short, long = encoded[0][0], replace(encoded[0][1], prompt_ids=encoded[0][1].prompt_ids * 3)
    trainer = make_trainer(tiny[0], tiny[1], "ga_kl", peft_config=lora_config(LoraSection(r=2, lora_dropout=0.0)))
    rows = Rows([long] * 6 + [short] * 6, [long] * 6 + [short] * 6)
    trainer.train_dataset = rows
    batch = rows.collate(list(range(24)))
    parts = parts_by_length(batch)
    assert [len(part["group"]) for part in parts] == [12, 12]
    assert parts[1]["input_ids"].shape[1] == len(short) - 1  # nothing reads the last token
    assert parts_by_length(parts[0]) == [parts[0]]
    trainer.step_loss.set_denominators([batch])
    gradients = []
    for step in (trainer.training_step, lambda m, b: trainer.compute_loss(m, b).backward()):
        with frozen_reference(forward_of(trainer.model)) as trainer.loss.reference:
            step(trainer.model.train(), batch)
        gradients.append({n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None})
        trainer.model.zero_grad()
    assert any(bool(g.any()) for g in gradients[0].values())
    assert all(torch.allclose(gradients[0][n], gradients[1][n], rtol=1e-4, atol=1e-7) for n in gradients[1])


def test_the_last_step_is_filled_with_rows_that_do_not_count(encoded: Any) -> None:
    """Seven pairs, four rows per process and step, three processes: 14 rows are filled to 24 with the last pair."""
    rows = Rows(encoded[0][:7], encoded[1][:7])
    alone, shared = PairedSampler(rows, 12, 0), PairedSampler(rows, 12, 0, multiple_of=12)
    assert len(list(alone)) == len(alone) == 14
    order = list(shared)
    assert order[:14] == list(alone)
    assert len(order) == len(shared) == 24
    assert {-1 - i for i in order[14:]} == set(order[12:14])
    batch = rows.collate(order[12:16])
    assert batch["counted"].tolist() == [1.0, 0.0, 1.0, 0.0]
    assert batch["index"].tolist() == [order[12], order[12], order[13], order[13]]
    assert "counted" not in rows.collate(order[:4])
    assert torch.equal(batch["group"], torch.tensor([0, 0, 2, 2]))
