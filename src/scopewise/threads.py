"""How the threads of a matrix product wait for each other. To be set before torch is imported."""

from __future__ import annotations

import os

SPINS = 10_000
"""Turns of the loop in which a thread of GNU's OpenMP waits before it sleeps; by its own default 300,000."""
_NAMED = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def wait_briefly() -> bool:
    """Let threads of OpenMP spin briefly and then sleep while they wait, unless the environment says how; return whether.

    A thread that spins takes the core from other processes, and on a busy machine from the very thread that it waits for. One
    that sleeps at once has to be woken for each operation. `benchmarks/waiting.py` measures both. Only the command calls this.
    It changes no result: how many threads there are, and so the order of sums, stays. OpenMP of other makers ignores it.
    """
    if any(name in os.environ for name in _NAMED):
        return False
    os.environ["GOMP_SPINCOUNT"] = str(SPINS)
    return True
