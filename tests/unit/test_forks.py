"""A fork behaves as the process that it stands for: what it is given, how it ends, and what kills it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from forks import python

SHOW = "import os, sys; print(sys.argv[1:], os.getcwd(), os.environ['GIVEN'], sys.stdin.read()); sys.exit(3)"


def run(program: str, *words: str, **options: Any) -> tuple[int, str, str]:
    done = subprocess.run([program, *words], capture_output=True, text=True, timeout=60, check=False, **options)
    return done.returncode, done.stdout, done.stderr.replace(program, "")


@pytest.mark.parametrize(
    "words",
    [
        ("-c", SHOW, "a", "b c", "ü"),
        ("script.py", "a"),
        ("-c", "import sys; sys.exit('a sentence')"),
        ("-c", "import os; os.kill(os.getpid(), 9)"),
        ("-c", "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"),
        ("-c", "import atexit; atexit.register(print, 'at the end')"),
        ("-m", "scopewise", "list", "methods"),
        ("-m", "scopewise", "list", "nothing"),
    ],
)
def test_a_fork_does_what_the_interpreter_does(words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SHOW)
    given = {"cwd": tmp_path, "env": {**os.environ, "GIVEN": "given"}, "input": "typed"}
    assert run(python(), *words, **given) == run(sys.executable, *words, **given)


def test_an_error_is_a_traceback() -> None:
    code, _, errors = run(python(), "-c", "raise ValueError('no')")
    assert code == 1
    assert errors.endswith("ValueError: no\n")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_reaches_the_fork(sent: signal.Signals) -> None:
    """What kills the program kills the fork, whose pid is another."""
    words = [python(), "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"]
    reset = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731 - it is ignored in the background
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, preexec_fn=reset)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.send_signal(sent)
    process.communicate(timeout=60)
    assert process.returncode == -sent
    end = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert not Path(f"/proc/{pid}").exists()


def test_forks_have_random_numbers_of_their_own() -> None:
    code = "import random, numpy; print(random.random(), numpy.random.random())"
    first, second = (run(python(), "-c", code)[1] for _ in range(2))
    assert all(a != b for a, b in zip(first.split(), second.split(), strict=True))
