"""Peak memory of one piece of work, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from scopewise.cost import Cost


def peak_of(work: Callable[[], object]) -> dict[str, int]:
    """Return the resident bytes before a piece of work, and the peak inside it."""
    with Cost() as idle:
        pass
    with Cost() as busy:
        work()
    return {"before": idle.peak_memory_bytes, "peak": busy.peak_memory_bytes}


def alone(script: str, arguments: Sequence[str]) -> Any:
    """Return the JSON that a script prints as its last line, run by itself; SystemExit where it fails.

    glibc is told to return every block above 64 KiB at once, so that the resident set is what is alive.
    """
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"memory: {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
