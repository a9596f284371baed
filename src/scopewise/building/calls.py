"""Calls of a generator: each made once, kept in a file, and counted against a budget."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from scopewise.building.generator import Generator
from scopewise.errors import ConfigError
from scopewise.files import FILE_MODE, make_folder, writing

FILE = "calls.jsonl"


class Budget:
    """Calls that may still be made; None for no limit. Several generators share one."""

    def __init__(self, calls: int | None = None) -> None:
        self.calls, self.used = calls, 0

    def take(self) -> None:
        """Count one call. Raises ConfigError if none is left."""
        if self.calls is not None and self.used >= self.calls:
            raise ConfigError(
                f"--budget: {self.calls} calls are used up; repeat the command with as many as you allow; what was answered "
                "is kept, and --dry-run counts what is left"
            )
        self.used += 1


class Calls:
    """Asks a generator, and answers again what was asked before from a file.

    Each reply is written as soon as it is there, under a hash of the generator's name and the prompt. So a build that was
    stopped continues, and pays for nothing twice. A line that a kill left incomplete is asked again.

    Args:
        generator: What is asked.
        folder: Of the file `calls.jsonl`, which several generators share.
        budget: What each call is taken from.
    """

    def __init__(self, generator: Generator, folder: Path, budget: Budget) -> None:
        self.generator, self.made, self.cached = generator, 0, 0
        self._budget = budget
        self._path = folder / FILE
        self._known = _read(self._path)

    def has(self, prompt: str) -> bool:
        """Return whether the reply to a prompt is in the file."""
        return self._key(prompt) in self._known

    def ask(self, prompt: str) -> str:
        """Return the reply. Raises ConfigError if the budget is used up, ModelError as the generator does."""
        key = self._key(prompt)
        if key in self._known:
            self.cached += 1
            return self._known[key]
        self._budget.take()
        reply = self.generator.ask(prompt)
        self.made += 1
        self._known[key] = reply
        self._append({"key": key, "generator": self.generator.name, "reply": reply})
        return reply

    def _key(self, prompt: str) -> str:
        return hashlib.sha256(f"{self.generator.name}\0{prompt}".encode()).hexdigest()

    def _append(self, record: dict[str, str]) -> None:
        make_folder(self._path.parent)
        with writing(self._path):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, FILE_MODE)
            with open(descriptor, "ab") as file:
                if file.tell() and not self._ends_a_line():
                    file.write(b"\n")
                file.write(json.dumps(record).encode() + b"\n")  # ASCII: half of a surrogate pair is escaped

    def _ends_a_line(self) -> bool:
        with open(self._path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"


def _read(path: Path) -> dict[str, str]:
    found = dict[str, str]()
    if not path.is_file():
        return found
    with writing(path), open(path, "rb") as file:
        for line in file:
            try:
                record = json.loads(line)
                found[record["key"]] = record["reply"]
            except (ValueError, KeyError, TypeError):  # a line that a kill cut off
                continue
    return found
