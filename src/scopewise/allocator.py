"""Keep freed memory in the process while one model is worked on, and return it to the system before the next."""

from __future__ import annotations

import ctypes
import gc
import os
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of <malloc.h>
_LARGEST_BLOCK = 32 * 2**20  # glibc takes no more
_KEPT = 2**30
_keeps = False
"""Whether this process keeps freed memory."""


def keep_freed_memory() -> bool:
    """Let this process keep up to a GiB of freed memory for its next allocations; return whether that was set.

    By default, glibc returns a large block to the system at once and requests it again in the next layer, where each page
    has to be faulted in and cleared. That takes several percent of a small model's step on a CPU. Only the command calls
    this, since in other programs it would change their memory use. It does nothing with another C library, or if the
    environment configures or replaces the allocator.
    """
    global _keeps
    named = any(name.startswith("MALLOC_") or name in ("GLIBC_TUNABLES", "LD_PRELOAD") for name in os.environ)
    if named or platform.libc_ver()[0] != "glibc":
        return False
    set_option = ctypes.CDLL(None).mallopt
    _keeps = bool(set_option(_MMAP_THRESHOLD, _LARGEST_BLOCK) and set_option(_TRIM_THRESHOLD, _KEPT))
    return _keeps


def release_memory() -> None:
    """Free what only reference cycles hold, such as a trainer with its model, and return kept memory to the system.

    Call this when the work on a model is done. Otherwise the next model is loaded beside it, and beside the blocks that its
    training has freed, which fit nothing that comes after.
    """
    gc.collect()
    if _keeps:
        ctypes.CDLL(None).malloc_trim(0)
