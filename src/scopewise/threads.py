"""How the threads of a matrix product wait for each other. To be set before torch is imported."""

from __future__ import annotations

import os

_NAMED = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def wait_asleep() -> bool:
    """Let threads of OpenMP sleep while they wait, unless the environment says how they wait; return whether that was set.

    By default they spin, which takes a core from other processes, and on a busy machine from the thread that is waited for.
    Only the command calls this. It changes no result: how many threads there are, and so the order of sums, stays.
    """
    if any(name in os.environ for name in _NAMED):
        return False
    os.environ |= {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}  # of GNU's and of Intel's
    return True
