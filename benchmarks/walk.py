"""Print the walk of an evaluation: the rooms of the package that it passes, in order, and from which room each is entered.

A room is a folder of `src/scopewise`, or a file of it or of `models/`. The model is tiny and has an adapter; the rows are some
of the built-in benchmark's.

    python benchmarks/walk.py              # the rooms
    python benchmarks/walk.py --functions  # the functions by which they are entered, too, with how often
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import scopewise

ROOT = Path(scopewise.__file__).parent


@dataclass
class Room:
    """A room as it is entered from another.

    Attributes:
        doors: The functions by which it is entered, and how often.
        rooms: Those that are entered from it, in the order of the first time.
    """

    doors: Counter[str] = field(default_factory=Counter)
    rooms: dict[str, Room] = field(default_factory=dict)

    def lines(self, functions: bool, depth: int = 0) -> list[str]:
        """Return the rooms below this one, a line each, indented."""
        found = []
        for name, room in self.rooms.items():
            doors = ", ".join(door if count == 1 else f"{door} x{count}" for door, count in room.doors.items())
            found.append("  " * depth + name + (f": {doors}" if functions else ""))
            found += room.lines(functions, depth + 1)
        return found


class Walk:
    """Follows the calls of the package while the context is open.

    Attributes:
        start: Where it begins.
        calls: How often each function is called, by its file inside the package and its name.
    """

    def __init__(self) -> None:
        self.start = Room()
        self.calls: Counter[tuple[str, str]] = Counter()
        self._stack: list[tuple[FrameType, str, Room]] = []
        self._begun: set[FrameType] = set()  # generators, which are entered again for each value

    def __enter__(self) -> Walk:
        sys.setprofile(self._see)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _see(self, frame: FrameType, event: str, _: Any) -> None:
        if self._stack and event == "return" and self._stack[-1][0] is frame:
            self._stack.pop()
        if event != "call" or (file := _file_of(frame.f_code)) is None:
            return
        name, door = _room_of(file), frame.f_code.co_qualname
        _, last, room = self._stack[-1] if self._stack else (None, "", self.start)
        new = frame not in self._begun
        if name != last:
            room = room.rooms.setdefault(name, Room())
            room.doors[door] += new
        self.calls[file, door] += new
        if frame.f_code.co_flags & inspect.CO_GENERATOR:
            self._begun.add(frame)
        self._stack.append((frame, name, room))


def _file_of(code: CodeType) -> str | None:
    path = Path(code.co_filename)
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else None


def _room_of(file: str) -> str:
    parts = Path(file).with_suffix("").parts
    return "/".join(parts[:2]) if parts[0] == "models" else parts[0]


def walks(folder: str | Path, rows: int = 3) -> tuple[Walk, Walk]:
    """Return the walks of making an engine and of an evaluation with it.

    Args:
        folder: For cached answers.
        rows: Rows of each scope and split.
    """
    from scopewise.config import EvaluateSection
    from scopewise.data.load import load_benchmark
    from scopewise.evaluation import evaluate
    from scopewise.testing.world import World

    world, whole = World.build(), load_benchmark("builtin")
    chosen = [
        r for scope in ("forget", "retain") for split in ("train", "val") for r in whole.select(scope, split)[:rows]
    ]
    model = world.model(adapter=True, trained=True)
    with Walk() as made:
        engine = world.engine(model)
    with Walk() as evaluated:
        evaluate(engine, replace(whole, rows=tuple(chosen)), EvaluateSection(max_new_tokens=4), cache=folder)
    return made, evaluated


def main() -> None:
    """Print both walks."""
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--functions", action="store_true", help="print the functions by which rooms are entered")
    functions = parser.parse_args().functions
    with tempfile.TemporaryDirectory() as folder:
        made, evaluated = walks(folder)
    print("An engine is made:", *made.start.lines(functions, 1), sep="\n")
    print("A model is evaluated:", *evaluated.start.lines(functions, 1), sep="\n")


if __name__ == "__main__":
    main()
