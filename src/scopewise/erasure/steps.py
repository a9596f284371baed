"""The steps of a request: numbered on the terminal, each kept when it is finished, so that an interrupted request goes on.

A user's error or an interruption before the first of them is finished leaves the folder empty.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from scopewise.documents import read_json
from scopewise.errors import ConfigError, ResultError, UserError, note_kept
from scopewise.eta import Whole, active_clock
from scopewise.files import make_folder, remove, write_json
from scopewise.lock import HOLDER, LOCK, RunLock

TITLES = {
    "check": "check the request",
    "known": "does the model know it?",
    "plan": "plan",
    "unlearn": "unlearn",
    "export": "export",
    "verify": "verify the exported files",
    "verdict": "verdict",
    "record": "record and page",
}
"""Step → what the terminal calls it, in their order."""
INPUTS = "request.inputs.json"
"""File of what all results of a request depend on; a folder that has it is that of a request."""


def progress(folder: Path) -> dict[str, str | None]:
    """Return each step of the request in a folder with what came out of it in words; None of a step that is not finished."""
    found: dict[str, str | None] = {}
    for name in list(TITLES)[:-1]:
        path = folder / "steps" / f"{name}.json"
        found[name] = _said(name, read_json(path, ResultError)) if path.exists() else None
    records = [*folder.glob("record.intoto.json"), *folder.glob("requests/*/record.intoto.json")]
    found["record"] = ", ".join(str(path.relative_to(folder)) for path in sorted(records)) or None
    return found


def _said(name: str, found: Mapping[str, Any]) -> str:
    match name:
        case "plan":
            return str(found["plan"]["why"])
        case "export":
            return "export"
        case "verdict":
            return ", ".join(f"{light} {one['light']}" for light, one in found.items())
    return str(found["said"])


def _different(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys whose values differ; of mappings, those inside."""
    for key in {**before, **now}:
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from (f"{key}.{inner}" for inner in _different(old, new))
        elif old != new:
            yield key


class Steps:
    """The folder of a request, and the results of its finished steps (`steps/NAME.json`).

    Args:
        folder: Of the request.
        inputs: Plain values on which all results depend.
        tell: Called with each line for the terminal.
        resume: Continue the request in the folder.
        overwrite: Replace it.

    Attributes:
        fresh: Whether the folder was empty, and is not to replace a request.
        attempt: A random word that is the same after an interruption, and another one after `overwrite`.
        whole: What is to be done, for the time that is left.

    Raises:
        ResultError: the folder has a request, with other inputs or without `resume`, or other files.
        ConfigError: both `resume` and `overwrite`.
    """

    def __init__(
        self, folder: Path, inputs: Mapping[str, Any], tell: Callable[[str], None], *, resume: bool, overwrite: bool
    ) -> None:
        if resume and overwrite:
            raise ConfigError(
                "--resume, --overwrite: both given; one keeps the request in the folder, one removes it; give one"
            )
        self.folder, self.tell = folder, tell
        self.whole = Whole()
        self._speeds = folder / "steps" / "speeds.json"
        self._new = self._finished = self.fresh = False
        marker = folder / INPUTS
        if marker.exists() and not (resume or overwrite):
            raise ResultError(
                f"--out: {folder} contains a request; add --resume to continue it, --overwrite to replace it, or name another"
            )
        others = [] if not folder.is_dir() else [f for f in folder.iterdir() if f.name not in (LOCK, HOLDER)]
        if others and not marker.exists():
            raise ResultError(f"--out: {folder}; a folder that holds other files; name a new one")
        self._made = not folder.exists()
        make_folder(folder, "--out")
        self._lock = RunLock(folder).__enter__()
        try:
            if overwrite:
                for path in sorted(others, key=lambda p: p.name == INPUTS):  # the marker last
                    remove(path)
            if marker.exists() and read_json(marker, ResultError) != inputs:
                changed = ", ".join(_different(read_json(marker, ResultError), inputs))
                raise ResultError(
                    f"--out: {folder} contains a request that differs in {changed}; name another folder, or add --overwrite "
                    "instead of --resume"
                )
            if not marker.exists():
                self._new, self.fresh = True, not overwrite
                write_json(marker, dict(inputs))
            token = folder / "steps" / "attempt.json"
            if not token.exists():
                write_json(token, secrets.token_hex(8))
            self.attempt: str = read_json(token, ResultError)
            if self._speeds.exists():
                self.whole.remember(read_json(self._speeds, ResultError))
        except BaseException:
            self._lock.__exit__()
            raise

    def __enter__(self) -> Steps:
        return self

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        empty = self._new and not self._finished
        if isinstance(error, KeyboardInterrupt) and not empty:
            note_kept(error)
        if isinstance(error, UserError | KeyboardInterrupt) and empty:
            for path in sorted(self.folder.iterdir(), key=lambda p: p.name == INPUTS):
                if path.name not in (LOCK, HOLDER):
                    remove(path)
        self._lock.__exit__()
        if self._made and empty and isinstance(error, UserError | KeyboardInterrupt):
            with suppress(OSError):  # another command may have come
                (self.folder / LOCK).unlink(missing_ok=True)
                self.folder.rmdir()

    def step(self, name: str, make: Callable[[], Mapping[str, Any]], said: Callable[[Mapping[str, Any]], str]) -> Any:
        """Return the plain values of a step: read, or made and written. One line says what came out.

        Args:
            name: A key of `TITLES`.
            make: Returns the values.
            said: Returns the line's text.
        """
        path = self.folder / "steps" / f"{name}.json"
        clock = active_clock()
        begin = clock()
        if not path.exists():
            self.whole.call(f"{self._number(name)} {TITLES[name]}")
            write_json(path, dict(make()))
            write_json(self._speeds, self.whole.speeds)
        self._finished = True
        found = read_json(path, ResultError)
        seconds = clock() - begin
        took = f" ({seconds / 60:.0f} min)" if seconds >= 90 else f" ({seconds:.0f} s)" if seconds >= 1 else ""
        self.line(name, f"{said(found)}{took}")
        return found

    def has(self, name: str) -> bool:
        """Return whether a step is finished."""
        return (self.folder / "steps" / f"{name}.json").exists()

    def line(self, name: str, text: str) -> None:
        """Tell what came out of a step."""
        self.tell(f"{self._number(name)} {TITLES[name]}: {text}")

    def _number(self, name: str) -> str:
        return f"{list(TITLES).index(name) + 1}/{len(TITLES)}"
