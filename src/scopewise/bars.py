"""Progress on stderr: on a terminal a bar that disappears when done, else a line per stage and every few minutes.

Within `showing` a terminal has one line for all: what is under way, and the time left of the whole.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from scopewise.eta import Whole, active_clock
from scopewise.terminal import echo, escaped, terminal_of, watch

EVERY_SECONDS = 180.0
"""Least seconds between two lines of a stage where stderr is no terminal."""

_latest = ("", "")


def under_way() -> tuple[str, str]:
    """Return description and unit of the bar that was opened last."""
    return _latest


@contextmanager
def showing(whole: Whole) -> Iterator[Whole]:
    """Show every progress bar of a block in one line, with the title of what is under way and the time left of the whole."""
    global _shown
    terminal = terminal_of(sys.stderr) if os.environ.get("RANK", "0") == "0" else None
    line = None if terminal is None else WholeLine(whole, terminal)
    _shown = whole, line
    try:
        yield whole
    finally:
        _shown = None, None
        whole.changed = lambda: None
        if line is not None:
            line.close()


def bar(
    total: int, description: str, unit: str = "row", *, initial: int = 0, disable: bool = False
) -> tqdm | Lines | Inner:
    """Return a progress bar; a context manager with `update`. Of several processes the first one draws.

    Args:
        total: Number of units; nothing is shown for 0.
        description: What is being done; the text before `: ` is the stage.
        unit: Of what.
        initial: How many are done already.
        disable: Show nothing.
    """
    global _latest
    _latest = description, unit
    disable = disable or not total or os.environ.get("RANK", "0") != "0"
    shown = escaped(description, keep="")
    whole, line = _shown
    if line is not None:
        return Inner(total, shown, unit, initial, disable, line)
    if (terminal := terminal_of(sys.stderr)) is None:
        return Lines(total, shown, unit, initial, disable, whole=whole)
    drawn = tqdm(total=total, desc=shown, unit=unit, initial=initial, disable=disable, leave=False, file=terminal)
    watch(drawn)
    return drawn


class WholeLine:
    """One line of a terminal: the title, the progress of the bar that was opened last, and the time left of the whole.

    Args:
        whole: What is shown.
        terminal: Where.
    """

    def __init__(self, whole: Whole, terminal: Any) -> None:
        self.whole, self._terminal, self._drawn = whole, terminal, 0.0
        self.inner: list[Inner] = []
        self._line = tqdm(total=1, bar_format="{desc}", leave=False, file=terminal)
        watch(self._line)
        whole.changed = self.draw
        self.draw()

    def draw(self, at_once: bool = True) -> None:
        """Draw it, at most ten times a second unless it has to be at once."""
        if not at_once and time.monotonic() - self._drawn < 0.1:
            return
        self._drawn = time.monotonic()
        left = self.whole.left()
        end = "" if left is None else f" · {duration(left)} left in all"
        begin = escaped(self.whole.title, keep="")
        inner = f" · {self.inner[-1].text}" if self.inner else ""
        room = self._width() - len(begin) - len(end)
        if len(inner) > room:  # its numbers stand at the end
            inner = f" … {inner[len(inner) - max(room - 3, 0) :]}" if room > 10 else ""
        self._line.set_description_str(f"{begin}{inner}{end}"[: self._width()])

    def close(self) -> None:
        """Take it off the terminal."""
        self._line.close()

    def _width(self) -> int:
        try:
            return os.get_terminal_size(self._terminal.fileno()).columns - 1
        except OSError:
            return 79


class Inner:
    """A progress bar in the line of a whole.

    Args:
        total: How many there are.
        description: What is done, escaped.
        unit: Of what.
        initial: How many are done already.
        disable: Show nothing.
        line: Where it is shown.
    """

    def __init__(self, total: int, description: str, unit: str, initial: int, disable: bool, line: WholeLine) -> None:
        self.n, self._total, self._description, self._unit = initial, total, description, unit
        self._more, self._line, self._disable = "", line, disable
        if not disable:
            line.whole.opened(self, total, unit, initial)
            line.inner.append(self)
            line.draw()

    @property
    def text(self) -> str:
        """What is done, and how far it is."""
        return f"{self._description}: {self.n} of {self._total} {self._unit}s ({self.n / self._total:.0%}){self._more}"

    def update(self, count: int = 1) -> None:
        """Add to the count."""
        self.n += count
        if not self._disable:
            self._line.whole.advanced(self, count, self._total, self._unit)
            self._line.draw(at_once=False)

    def set_postfix(self, refresh: bool = True, **values: str) -> None:
        """Show values behind it."""
        self._more = "".join(f", {name} {value}" for name, value in values.items())

    def close(self) -> None:
        """Take it out of the line."""
        self._line.whole.closed(self)
        if self in self._line.inner:
            self._line.inner.remove(self)
            self._line.draw()

    def __enter__(self) -> Inner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_shown: tuple[Whole | None, WholeLine | None] = (None, None)
"""The whole that bars belong to, and its line on a terminal."""
_said: set[tuple[str, str]] = set()
"""Stages (with their unit) that a line was written of."""
_written = 0.0
"""When the last line was written; of all stages, since many short ones may follow each other."""


class Lines:
    """Progress as lines of a log: when a stage begins, and every few minutes how far it is and when it may be done.

    Args:
        total: How many there are.
        description: What is done, escaped.
        unit: Of what.
        initial: How many are done already.
        disable: Write nothing.
        clock: Gives the time in seconds in which this process ran.
        whole: What it belongs to.
    """

    def __init__(
        self,
        total: int,
        description: str,
        unit: str,
        initial: int = 0,
        disable: bool = False,
        clock: Callable[[], float] | None = None,
        whole: Whole | None = None,
    ) -> None:
        self.n = self._first = initial
        self._total, self._description, self._unit = total, description, unit
        self._disable, self._clock, self._more = disable, clock or active_clock(), ""
        self._begun = self._clock()
        self._whole = None if disable else whole
        if self._whole is not None:
            self._whole.opened(self, total, unit, initial)
        stage = description.partition(": ")[0], unit
        if not disable and stage not in _said:
            _said.add(stage)
            self._write(f"{total} {unit}{'s' if total > 1 else ''}" + (f", {initial} of them done" if initial else ""))

    def update(self, count: int = 1) -> None:
        """Add to the count; write a line if the last one is minutes old."""
        self.n += count
        now = self._clock()
        if self._whole is not None:
            self._whole.advanced(self, count, self._total, self._unit)
        if self._disable or now - _written < EVERY_SECONDS or self.n >= self._total:
            return
        left = ""
        if self.n > self._first:
            left = f", {duration((now - self._begun) / (self.n - self._first) * (self._total - self.n))} left"
        if self._whole is not None and (in_all := self._whole.left()) is not None:
            left += f", {duration(in_all)} left in all"
        self._write(f"{self.n} of {self._total} {self._unit}s ({self.n / self._total:.0%}){left}{self._more}")

    def set_postfix(self, refresh: bool = True, **values: str) -> None:
        """Show values behind what follows."""
        self._more = "".join(f", {name} {value}" for name, value in values.items())

    def close(self) -> None:
        """Write nothing: the next stage writes its own line."""
        if self._whole is not None:
            self._whole.closed(self)

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, text: str) -> None:
        global _written
        _written = self._clock()
        echo(f"{self._description}: {text}", err=True)


def duration(seconds: float) -> str:
    """Return a duration in its two largest units."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
