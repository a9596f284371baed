"""The lock that lets only one command at a time use a run folder, and the one for short changes of a file. Imports no torch."""

from __future__ import annotations

import datetime
import json
import logging
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from scopewise.errors import ResultError
from scopewise.files import FILE_MODE, write_json, writing

logger = logging.getLogger("scopewise")

LOCK, HOLDER = ".lock", ".holder.json"


class RunLock:
    """The lock of a run folder. The operating system releases it when the process ends, also if it is killed.

    The same process may take it again, so that a notebook can open the same run twice.

    Args:
        folder: The run folder, which must exist.

    Attributes:
        token: Identifies this holder of the lock; with it, the jobs of a bench may use the folder while the bench holds the
            lock.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.token = secrets.token_hex(8)
        self._lock = FileLock(folder.resolve() / LOCK, timeout=0, mode=FILE_MODE, thread_local=False, is_singleton=True)

    def __enter__(self) -> RunLock:
        """Acquire it. Raises ResultError if another process holds it; the message names that process."""
        with writing(self.folder, "run.dir"):
            try:
                self._lock.acquire()
            except Timeout:
                raise ResultError(
                    f"run.dir: {self.folder} is in use by {_shown(holder(self.folder))}; only one command at a time "
                    "can work on a run; wait for it or stop it, or name another folder with --set run.dir=…"
                ) from None
            except NotImplementedError:
                logger.warning("%s: its file system has no locks; let no second command work on this run", self.folder)
        if self._lock.lock_counter <= 1:
            command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
            since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            about = {"pid": os.getpid(), "host": socket.gethostname(), "command": command[:500], "since": since}
            write_json(self.folder / HOLDER, {**about, "token": self.token})
        else:
            self.token = str(holder(self.folder).get("token", self.token))
        return self

    def __exit__(self, *_: object) -> None:
        """Release it."""
        if self._lock.lock_counter == 1:
            with suppress(OSError):
                (self.folder / HOLDER).unlink()
        self._lock.release()


@contextmanager
def changing(path: Path, seconds: float = 30.0) -> Iterator[None]:
    """Let only one process, and in it one thread, change a file at a time; the others wait.

    Args:
        path: The file. Its lock is `.NAME.lock` beside it; its folder must exist.
        seconds: How long to wait.

    Raises:
        ResultError: another process held it all that time.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=seconds, mode=FILE_MODE, thread_local=False)
    with writing(path):
        try:
            lock.acquire()
        except Timeout:
            raise ResultError(
                f"{path}: another process has been changing it for {seconds:.0f} s; stop that one"
            ) from None
        except NotImplementedError:
            logger.warning("%s: its file system has no locks; let no second command write to it", path)
    try:
        yield
    finally:
        lock.release()


def join(folder: Path, token: str) -> None:
    """Raise ResultError unless the bench that started this job still holds its folder."""
    if holder(folder).get("token") != token:
        raise ResultError(f"run.dir: {folder}; the bench that submitted this job is no longer running; start it again")


def holder(folder: Path) -> dict[str, Any]:
    """Return who holds, or last held, the lock: `pid`, `host`, `command`, `since`, `token`; empty if this is not recorded."""
    try:
        found = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def under_way(folder: Path) -> dict[str, Any] | None:
    """Return who is using a run folder, as `holder` does, or None. Takes no lock and writes nothing.

    For a process on another host we cannot check whether it still runs, so we trust its record.
    """
    known = holder(folder)
    if not isinstance(known.get("pid"), int) or known.get("host") != socket.gethostname():
        return known or None
    try:
        os.kill(known["pid"], 0)
    except (ProcessLookupError, OverflowError):
        return None  # it was killed
    except OSError:  # it belongs to another user
        pass
    return known


def _shown(known: dict[str, Any]) -> str:
    if not known:
        return "another process"
    return f"process {known.get('pid')} on {known.get('host')} (`{known.get('command')}`, since {known.get('since')})"
