"""What a process does with memory it has freed."""

from __future__ import annotations

import ctypes
import os
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of <malloc.h>
_LARGEST_BLOCK = 32 * 2**20  # glibc takes no more
_KEPT = 2**30


def keep_freed_memory() -> bool:
    """Let this process keep up to a GiB that it has freed, and take its next blocks from there; return whether it does.

    glibc gives a large block back to the system at once, and asks for it again in the next layer, where each of its pages
    is then faulted in and cleared: several percent of a small model's step on a CPU. This is for the command's own
    process; of others it would change what they hold. Left alone is a C library of another kind, and an
    allocator that the environment has settings for, or puts in glibc's place.
    """
    named = any(name.startswith("MALLOC_") or name in ("GLIBC_TUNABLES", "LD_PRELOAD") for name in os.environ)
    if named or platform.libc_ver()[0] != "glibc":
        return False
    set_option = ctypes.CDLL(None).mallopt
    return bool(set_option(_MMAP_THRESHOLD, _LARGEST_BLOCK) and set_option(_TRIM_THRESHOLD, _KEPT))
