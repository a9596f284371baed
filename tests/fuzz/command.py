"""Run a command as its console script does, in a fork of a process that has imported everything: torch is loaded once."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import pkgutil
import resource
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

WALL_SECONDS = 120.0
NOBODY = 65534
_MEMORY = 6 << 30  # bytes that a command may take besides what the imports have


@dataclass(frozen=True)
class Done:
    """What a command did.

    Attributes:
        code: Exit code; minus the signal that ended it.
        out: Bytes on stdout.
        err: Bytes on stderr.
        seconds: Processor time.
        late: It was stopped after `WALL_SECONDS`.
    """

    code: int
    out: bytes
    err: bytes
    seconds: float
    late: bool = False


def preload() -> None:
    """Import all that commands import, so that a fork begins at once. Starts no thread."""
    import scopewise

    for module in pkgutil.walk_packages(scopewise.__path__, "scopewise."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):  # of an extra that is not installed
                importlib.import_module(module.name)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM  # noqa: F401

    torch.set_num_threads(1)


def run(
    arguments: Sequence[str],
    folder: Path,
    *,
    as_nobody: bool = False,
    largest_file: int | None = None,
) -> Done:
    """Run `scopewise ARGUMENTS` in a folder."""
    sys.stdout.flush()
    sys.stderr.flush()
    ends = {number: os.pipe() for number in (1, 2)}
    child = os.fork()
    if child == 0:
        _command(arguments, folder, {number: write for number, (_, write) in ends.items()}, as_nobody, largest_file)
    printed = {read: bytearray() for read, _ in ends.values()}
    for read, write in ends.values():
        os.close(write)
        os.set_blocking(read, False)
    deadline = time.monotonic() + WALL_SECONDS
    late = False
    while True:
        ended, status, used = os.wait4(child, os.WNOHANG)
        for read, found in printed.items():
            with contextlib.suppress(BlockingIOError):
                while part := os.read(read, 1 << 16):
                    found += part
        if ended:
            break
        if time.monotonic() > deadline and not late:
            late = True
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.003)
    with contextlib.suppress(ProcessLookupError, PermissionError):  # what it started and did not wait for
        os.killpg(child, signal.SIGKILL)
    for read in printed:
        os.close(read)
    out, err = map(bytes, printed.values())
    return Done(
        os.waitstatus_to_exitcode(status),
        out,
        err,
        used.ru_utime + used.ru_stime,
        late,
    )


def _command(
    arguments: Sequence[str], folder: Path, prints: dict[int, int], as_nobody: bool, largest_file: int | None
) -> NoReturn:
    code = 1
    try:
        os.setsid()
        for number, write in prints.items():
            os.dup2(write, number)
        os.chdir(folder)
        with open("/proc/self/statm") as statm:
            limit = int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE") + _MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if largest_file is not None:  # Python ignores the signal of it: writing raises OSError
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
        if as_nobody:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        # As the interpreter opens them where they are no terminal.
        sys.stdin = open(os.devnull, encoding="utf-8")
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
        sys.argv = ["scopewise", *arguments]
        sys.modules["__main__"].__package__ = None  # the program's name is read off it
        from scopewise.cli import main

        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
            logging.shutdown()
    finally:
        os._exit(code)
