"""Python processes that need not import torch again: forks of one process that has imported what commands import.

`python()` is the path of a program that does what this interpreter does with `-m MODULE`, `-c CODE` or a script: with the
arguments, folder, environment and standard streams that it is given, and it ends as the process that it stands for ends.
It is a small client (`client.py`) of a server (`server.py`), which forks.

A test whose process has to begin from nothing takes `sys.executable` instead: for what it imports, its hash seed, its limits.
With `SCOPEWISE_TEST_FORKS=off` in the environment every process does: `make test-all` runs so.
"""

from __future__ import annotations

import atexit
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
OFF = os.environ.get("SCOPEWISE_TEST_FORKS") == "off"


def python() -> str:
    """Return the path of the program; the server starts with the first call and ends with this process."""
    return sys.executable if OFF else str(_programs() / "python")


def programs() -> str:
    """Return the folder with the programs `python` and `scopewise`, to stand first in a `PATH`."""
    return str(Path(sys.executable).parent if OFF else _programs())


@cache
def _programs() -> Path:
    holder = tempfile.TemporaryDirectory(prefix="forks-")
    folder = Path(holder.name)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        listener.listen(64)
        words = [sys.executable, str(HERE / "server.py"), str(listener.fileno()), str(folder / "python")]
        # Its standard input ends when this process does.
        server = subprocess.Popen(words, stdin=subprocess.PIPE, pass_fds=[listener.fileno()])

    def end() -> None:
        server.kill()
        server.wait()
        holder.cleanup()

    atexit.register(end)
    client = shlex.join([sys.executable, "-IS", str(HERE / "client.py"), str(folder / "socket")])
    for name, more in (("python", ""), ("scopewise", " -m scopewise")):
        (folder / name).write_text(f'#!/bin/sh\nexec {client}{more} "$@"\n')
        (folder / name).chmod(0o755)
    return folder
