"""Memory that is freed and taken again: without a page fault, and not where somebody else decides."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys

CODE = """
import ctypes, resource, sys
from scopewise.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    print(keep_freed_memory())
c = ctypes.CDLL(None)
c.malloc.restype = ctypes.c_void_p
c.malloc.argtypes = (ctypes.c_size_t,)
c.memset.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
c.free.argtypes = (ctypes.c_void_p,)
def touch():
    for _ in range(50):
        block = c.malloc(2**23)
        c.memset(block, 1, 2**23)
        c.free(block)
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 50 * 2**23 // resource.getpagesize()


def run(*arguments: str, **environment: str) -> list[str]:
    inherited = {n: v for n, v in os.environ.items() if not n.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD"))}
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_freed_memory_is_kept_unless_the_environment_says_otherwise() -> None:
    """In pages that are touched a second time: none is new to the process, or all are."""
    kept, faults = run("keep")
    assert kept == str(platform.libc_ver()[0] == "glibc")
    assert kept == "False" or int(faults) < PAGES / 100
    kept, faults = run("keep", MALLOC_MMAP_THRESHOLD_="65536")
    assert kept == "False"
    if platform.libc_ver()[0] == "glibc":
        assert int(faults) >= PAGES
        assert int(*run("leave", MALLOC_MMAP_THRESHOLD_="65536")) >= PAGES


RELEASED = """
import ctypes, weakref
from pathlib import Path
from scopewise.allocator import keep_freed_memory, release_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

class Trainer:
    def __init__(self):
        self.weights, self.itself = bytearray(2**20), self

keep_freed_memory()
c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes, c.free.argtypes = ctypes.c_void_p, (ctypes.c_size_t,), (ctypes.c_void_p,)
blocks = [c.malloc(2**20) for _ in range(256)]
for block in blocks:
    ctypes.memset(block, 1, 2**20)
last = c.malloc(64)  # what is above keeps the top of the heap in use
for block in blocks:
    c.free(block)
trainer = weakref.ref(Trainer())
before = resident()
print(trainer() is None)
release_memory()
print(trainer() is None, before - resident())
"""


def test_released_memory_goes_back_to_the_system() -> None:
    """A cycle of references is freed, and so are 256 MB that were freed before, though a block above them is in use."""
    inherited = {n: v for n, v in os.environ.items() if not n.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD"))}
    done = subprocess.run([sys.executable, "-c", RELEASED], env=inherited, capture_output=True, text=True, check=True)
    cycle, gone, released = done.stdout.split()
    assert (cycle, gone) == ("False", "True")
    if platform.libc_ver()[0] == "glibc":
        assert int(released) > 200 * 2**20
