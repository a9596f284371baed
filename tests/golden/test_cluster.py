"""A bench whose models Ray or submitit makes gives the results file of one that this process makes, also after a loss."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from forks import python
from scopewise.config import ClusterSection
from scopewise.errors import ConfigError
from scopewise.run_file import load_config
from scopewise.runs.cluster.jobs import Job, Task, waves
from scopewise.runs.cluster.on_slurm import make_executor, submit

ROOT = Path(__file__).parents[2]
SETTINGS = [
    "model.tiny.width=32", "model.tiny.layers=2", "model.tiny.heads=2", "model.tiny.vocab_size=400",
    "finetune.num_train_epochs=1", "unlearn.num_train_epochs=0.5", "evaluate.max_new_tokens=2", "evaluate.splits=[val]",
    "evaluate.direct_splits=[]", "bench.methods=[ga_descent,memflex,memflex@random]", "unlearn.save_steps=1",
]  # fmt: skip


def start(program: str, folder: Path, *more: str) -> subprocess.Popen[bytes]:
    words = [program, "-m", "scopewise", "bench", "configs/demo.yaml"]
    for setting in [*SETTINGS, *more, f"run.dir={folder}"]:
        words += ["--set", setting]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=500)
    assert process.returncode == 0, errors.decode()[-3000:]


def results(folder: Path) -> tuple[Any, ...]:
    """Everything of a results file but times, memory and where it was made."""
    found = json.loads((folder / "results.json").read_text())
    rows = [
        {k: v for k, v in row.items() if k not in ("cost", "origin")} | {"steps": row["cost"]["steps"]}
        for row in found["rows"]
    ]
    return found["format"], found["complete"], found["manifest"]["config_hash"], rows, found["comparisons"]


def descendants(pid: int, words: tuple[str, ...]) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        try:
            if any(word in " ".join(process.cmdline()) for word in words):
                found.append(process)
        except psutil.Error:
            continue
    return found


SMALLER = ("bench.methods=[memflex]", "bench.oracle=false")  # for jobs that begin from nothing, as submitit's do


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "more", "worker"),
    [
        ("ray", ("bench.engine=ray", *SMALLER), ("ray::_run",)),
        pytest.param("ray", ("bench.engine=ray",), ("ray::_run",), marks=pytest.mark.long),
        pytest.param(
            "slurm",
            ("bench.engine=slurm", "bench.cluster.scheduler=local", *SMALLER),
            ("submitit.core._submit",),
            marks=pytest.mark.long,
        ),
    ],
)
def test_an_engine_gives_the_same_results(
    engine: str, more: tuple[str, ...], worker: tuple[str, ...], tmp_path: Path
) -> None:
    """A worker is killed while it unlearns: its job is done again, from its checkpoint."""
    process = start(sys.executable, tmp_path / engine, *more)
    end = time.monotonic() + 400
    killed = False
    while not killed and process.poll() is None and time.monotonic() < end:
        if any((tmp_path / engine).glob("models/*/paper/*.partial/checkpoints/checkpoint-*/cost.json")):
            for one in descendants(process.pid, worker)[:1]:
                one.kill()
                killed = True
        time.sleep(0.02)
    finish(process)
    assert killed
    alone = start(python(), tmp_path / "local", *(SMALLER if SMALLER[0] in more else ()))
    finish(alone)
    assert results(tmp_path / engine) == results(tmp_path / "local")
    assert not list((tmp_path / engine).rglob("*.partial"))


def test_waves_put_controls_after_what_they_copy() -> None:
    config = load_config(
        None, ["bench.methods=[memflex@random,npo]", "bench.seeds=[0,1]", "bench.protocols=[paper,tuned]"]
    )
    found = waves(config)
    assert [{job.what for job in wave} for wave in found] == [
        {"base"}, {"target", "oracle"}, {"region"}, {"region"}, {"search"}, {"model"},
    ]  # fmt: skip
    assert found[2] == [Job("region", "gradient", 0), Job("region", "gradient", 1)]
    assert found[3] == [Job("region", "random", 0), Job("region", "random", 1)]
    assert len(found[5]) == 8
    assert [str(job) for job in (found[5][0], found[2][1], found[0][0])] == [
        "memflex@random, paper, seed 0", "region gradient, seed 1", "base",
    ]  # fmt: skip


def test_a_wrong_setting_is_a_sentence_and_not_tried_again(tmp_path: Path) -> None:
    task = Task(
        load_config(None, [f"run.dir={tmp_path}/r", "data.path=/nowhere"]).model_dump(mode="json"), Job("base"), "."
    )
    assert "/nowhere" in str(task())


def test_the_script_for_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is handed to `sbatch`, taken down by a stand-in for it; and the sentence where there is none."""
    with pytest.raises(ConfigError, match=r"bench\.engine: slurm"):
        make_executor(ClusterSection(), tmp_path)
    for name, text in (("sbatch", f'cp "$1" {tmp_path}/script\necho Submitted batch job 12'), ("srun", "exit 1")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    settings = ClusterSection(
        cpus=8, gpus=1, memory_gigabytes=64, minutes=90, partition="a100", account="nlp", setup=("module load cuda",)
    )
    executor = make_executor(settings, tmp_path)
    jobs = submit(executor, [Task({}, Job("base"), "."), Task({}, Job("oracle"), ".")])
    assert len(jobs) == 2
    script = (tmp_path / "script").read_text()
    for line in (
        "#SBATCH --array=0-1%2", "#SBATCH --cpus-per-task=8", "#SBATCH --gpus-per-node=1", "#SBATCH --mem=64GB",
        "#SBATCH --time=90", "#SBATCH --partition=a100", "#SBATCH --account=nlp", "#SBATCH --job-name=scopewise",
        "module load cuda",
    ):  # fmt: skip
        assert line in script, script
    assert "submitit.core._submit" in script
