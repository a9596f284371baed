"""Progress on stderr: on a terminal a bar that disappears when done, else a line per stage and every few minutes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from tqdm import tqdm

from scopewise.terminal import echo, escaped, terminal_of, watch

EVERY_SECONDS = 180.0
"""Least seconds between two lines of a stage where stderr is no terminal."""

_latest = ("", "")


def under_way() -> tuple[str, str]:
    """Return description and unit of the bar that was opened last."""
    return _latest


def bar(total: int, description: str, unit: str = "row", *, initial: int = 0, disable: bool = False) -> tqdm | Lines:
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
    if (terminal := terminal_of(sys.stderr)) is None:
        return Lines(total, shown, unit, initial, disable)
    drawn = tqdm(total=total, desc=shown, unit=unit, initial=initial, disable=disable, leave=False, file=terminal)
    watch(drawn)
    return drawn


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
        clock: Gives the time in seconds.
    """

    def __init__(
        self,
        total: int,
        description: str,
        unit: str,
        initial: int = 0,
        disable: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.n = self._first = initial
        self._total, self._description, self._unit = total, description, unit
        self._disable, self._clock, self._more = disable, clock, ""
        self._begun = clock()
        stage = description.partition(": ")[0], unit
        if not disable and stage not in _said:
            _said.add(stage)
            self._write(f"{total} {unit}{'s' if total > 1 else ''}" + (f", {initial} of them done" if initial else ""))

    def update(self, count: int = 1) -> None:
        """Add to the count; write a line if the last one is minutes old."""
        self.n += count
        now = self._clock()
        if self._disable or now - _written < EVERY_SECONDS or self.n >= self._total:
            return
        left = ""
        if self.n > self._first:
            left = f", {_time((now - self._begun) / (self.n - self._first) * (self._total - self.n))} left"
        self._write(f"{self.n} of {self._total} {self._unit}s ({self.n / self._total:.0%}){left}{self._more}")

    def set_postfix(self, refresh: bool = True, **values: str) -> None:
        """Show values behind what follows."""
        self._more = "".join(f", {name} {value}" for name, value in values.items())

    def close(self) -> None:
        """Do nothing: the next stage writes its own line."""

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, text: str) -> None:
        global _written
        _written = self._clock()
        echo(f"{self._description}: {text}", err=True)


def _time(seconds: float) -> str:
    """Return a duration in its two largest units."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
