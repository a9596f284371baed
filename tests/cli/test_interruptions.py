"""Signals and lack of memory end a command with a sentence, and leave a run that goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from forks import python
from scopewise.cli.failures import is_out_of_memory

ROOT = Path(__file__).parents[2]
SMALL = [
    "model.tiny.width=32", "model.tiny.layers=2", "model.tiny.heads=2", "model.tiny.vocab_size=400",
    "finetune.num_train_epochs=40", "finetune.batch_size=8", "evaluate.splits=[val]", "evaluate.max_new_tokens=2",
]  # fmt: skip


def command(program: str, folder: Path, *started: str) -> list[str]:
    words = [program, *started, "finetune", "--which", "target"]
    for setting in [*SMALL, f"run.dir={folder}"]:
        words += ["--set", setting]
    return words


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_says_how_to_go_on(sent: signal.Signals, tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def heard() -> None:
        """A shell that runs the tests in the background has Ctrl-C ignored, `nohup` SIGHUP, and children inherit that."""
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)

    process = subprocess.Popen(
        command(python(), folder, "-m", "scopewise"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heard,
    )
    end = time.monotonic() + 120
    while not (folder / "target.partial").exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + sent
    last = errors.strip().splitlines()[-1]
    assert last.startswith("scopewise: ")
    assert "--resume" in last
    assert "Traceback" not in errors
    assert (folder / "config.yaml").exists()


def test_what_nohup_ignores_stays_ignored() -> None:
    code = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from scopewise.cli.signals import interrupt_on_signals; interrupt_on_signals()\n"
        "import os; os.kill(os.getpid(), signal.SIGHUP); print('alive')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "alive\n"


LIMITED = """
import resource
import scopewise.runs.pipeline  # what the command imports is no part of its work
with open("/proc/self/statm") as statm:
    size = int(statm.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 500 * 2**20,) * 2)
from scopewise.cli import main
main()
"""


def test_lack_of_memory_names_the_work(tmp_path: Path) -> None:
    """A batch of all rows, of a model whose activations do not fit the address space that the process is given."""
    words = command(python(), tmp_path / "run", "-c", LIMITED)
    for setting in ("model.tiny.width=256", "model.tiny.layers=8", "finetune.batch_size=512"):
        words += ["--set", setting]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2, done.stderr[-2000:]
    last = done.stderr.strip().splitlines()[-1]
    assert "out of memory" in last
    assert "batch_size" in last
    assert "Traceback" not in done.stderr


def test_what_is_lack_of_memory() -> None:
    """Of the allocator itself, and of the kinds that only say so."""
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**50)
    assert is_out_of_memory(error.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert is_out_of_memory(OSError(12, "Cannot allocate memory"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(json.JSONDecodeError("x", "", 0))
