"""The time that is left of a whole, from the costs of its parts and the speed of those that were made.

Parts that were read from disk say nothing of the speed, unless an earlier process wrote it down. Time in which the process was
stopped does not count.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

TICK, MOST_GAP = 1.0, 5.0
"""Seconds between two ticks of the clock, and how much of a longer gap counts: the process was stopped in between."""
_ENOUGH = 0.1
"""Share of a part from which its own speed counts more than that of earlier parts; the first steps are slow."""


def training_cost(rows: int, epochs: float, batch_size: int) -> float:
    """Return the cost of a training: three for each row (its forward and backward pass), and for each step as for 32 rows.

    On small models a step takes about as long with 16 rows as with 32; measured on the tiny model of the demo.
    """
    return epochs * 3.0 * (rows + 32 * math.ceil(rows / batch_size))


class ActiveClock:
    """Seconds in which this process ran. Without calls for longer than `MOST_GAP` it takes the process for stopped.

    Args:
        clock: Seconds, stopped or not.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._seconds, self._last = clock, 0.0, clock()

    def __call__(self) -> float:
        """Return the seconds so far."""
        now = self._clock()
        self._seconds, self._last = self._seconds + min(now - self._last, MOST_GAP), now
        return self._seconds


@cache
def active_clock() -> ActiveClock:
    """Return the clock of this process, which a thread reads every second."""
    clock = ActiveClock()

    def tick() -> None:
        while True:
            time.sleep(TICK)
            clock()

    threading.Thread(target=tick, name="active clock", daemon=True).start()
    return clock


@dataclass(frozen=True)
class Part:
    """A part of the work.

    Attributes:
        name: What it is.
        kinds: Parts that share a kind have about one speed; the most specific kind first.
        cost: Work, in a unit that all parts share.
        bars: Number of progress bars that it opens, of about the same length, from which its progress is read until a part of
            its kind is done; 0: not known.
        step: Cost of a training step, if it trains besides other things, as attacks do.
    """

    name: str
    kinds: tuple[str, ...]
    cost: float
    bars: int = 0
    step: float = 0.0


def _nothing() -> None:
    """Do nothing."""


class _Current:
    """The part under way.

    Attributes:
        part: The part.
        start: When its first bar was opened; before, when it began.
        begun: The same, or when its training began.
        share: How much of it is done (0-1).
        first: How much was done already when it began.
        works: Whether it does anything, or only reads what was there.
        trains: Whether a training has begun: then its steps alone are the measure.
        rows: Units of its bars that are done, but for steps of a known cost.
        bars: The same, as a share of each bar.
        stepped: Share of its cost that is done by such steps.
    """

    def __init__(self, part: Part, begun: float) -> None:
        self.part, self.begun, self.start = part, begun, begun
        self.share = self.first = self.rows = self.bars = self.stepped = 0.0
        self.works = self.trains = False

    def pace(self, now: float) -> float | None:
        """Return seconds per cost of what it has done itself; None before."""
        done = (self.share - self.first) * self.part.cost
        return (now - self.begun) / done if done > 0 else None


class Whole:
    """What a command has to do: the parts to come, the one under way, and the speed of those that are done.

    Args:
        parts: What is to be done, in order.
        clock: Seconds.

    Attributes:
        title: What is under way, such as `4/8 unlearn`.
        changed: Called when there is another title.
    """

    def __init__(self, parts: Iterable[Part] = (), clock: Callable[[], float] | None = None) -> None:
        self.title = ""
        self.changed: Callable[[], None] = _nothing
        self._clock = clock or active_clock()
        self._to_come = list(parts)
        self._current: _Current | None = None
        self._spent: dict[str, tuple[float, float, float]] = {}  # kind (or empty for all) → seconds, cost, rows
        self._open: list[object] = []

    def call(self, title: str) -> None:
        """Set the title."""
        self.title = title
        self.changed()

    @property
    def speeds(self) -> dict[str, tuple[float, float, float]]:
        """Kind of part → seconds, cost and rows of those that were done; empty: of all."""
        return dict(self._spent)

    def remember(self, speeds: Mapping[str, Sequence[float]]) -> None:
        """Begin with the speeds of an earlier process."""
        self._spent = {kind: (seconds, cost, rows) for kind, (seconds, cost, rows) in speeds.items()}

    def expect(self, parts: Iterable[Part]) -> None:
        """Replace the parts that are to come."""
        self._to_come = list(parts)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Do the next part of this name; one that was not expected has no cost."""
        if self._current is not None:  # a part of a part
            yield
            return
        found = next((part for part in self._to_come if part.name == name), None)
        if found is not None:
            self._to_come.remove(found)
        self._current = current = _Current(found or Part(name, (), 0.0), self._clock())
        try:
            yield
            self._spend(current)
        finally:
            self._current = None
            self._open.clear()

    def opened(self, bar: object, total: int, unit: str, first: int) -> None:
        """Note that a progress bar was opened; the outermost bar of steps is the measure of a training."""
        self._open.append(bar)
        if (current := self._current) is None:
            return
        if not current.works:  # loading a model takes as long for much work as for little
            current.works, current.start, current.begun = True, self._clock(), self._clock()
        trains = unit == "step" and "train" in current.part.kinds  # those of an attack count as rows, or by their cost
        if trains and not current.trains and len(self._open) == 1:
            current.trains, current.begun = True, self._clock()
            current.share = current.first = first / total

    def advanced(self, bar: object, count: int, total: int, unit: str) -> None:
        """Note that a bar went on by a count."""
        if (current := self._current) is None:
            return
        if current.trains:
            if unit == "step" and self._open[:1] == [bar]:
                current.share += count / total
        elif current.part.cost:
            if unit == "step" and current.part.step:
                current.stepped += count * current.part.step / current.part.cost
            else:
                current.rows, current.bars = current.rows + count, current.bars + count / total
            known = next((self._spent[kind] for kind in current.part.kinds if kind in self._spent), None)
            if known is not None and known[2]:  # the rows that such a part has
                scored = current.rows / (known[2] / known[1] * current.part.cost)
                current.share = min(scored + current.stepped, 0.99)
            elif current.part.bars:
                current.share = min(current.bars / current.part.bars, 0.99)

    def closed(self, bar: object) -> None:
        """Note that a bar was closed."""
        if bar in self._open:
            self._open.remove(bar)

    def seconds(self, parts: Iterable[Part]) -> float | None:
        """Return how long parts will take; None while nothing is known of the speed."""
        found = [part.cost * pace if (pace := self._pace(part)) is not None else None for part in parts if part.cost]
        return None if None in found else math.fsum(filter(None, found))

    def left(self) -> float | None:
        """Return the seconds that are left; None while nothing is known of the speed."""
        later = self.seconds(self._to_come)
        if (current := self._current) is None or later is None or not current.part.cost:
            return later
        known, own = self._pace(current.part), current.pace(self._clock())
        pace = own if own is not None and (known is None or current.share - current.first >= _ENOUGH) else known
        return None if pace is None else later + max(0.0, 1 - current.share) * current.part.cost * pace

    def _spend(self, current: _Current) -> None:
        done = (1 - current.first) * current.part.cost
        if not current.works or done <= 0:
            return
        took, rows_done = self._clock() - current.start, current.rows / max(1 - current.stepped, 0.01)
        for kind in (*current.part.kinds, ""):
            seconds, cost, rows = self._spent.get(kind, (0.0, 0.0, 0.0))
            self._spent[kind] = seconds + took, cost + done, rows + rows_done

    def _pace(self, part: Part) -> float | None:
        """Return seconds per cost: of finished parts of the same kind, else of the current one, else of all."""
        current = self._current
        own = None if current is None else current.pace(self._clock())
        enough = current is not None and current.share - current.first >= _ENOUGH
        for kind in part.kinds:
            if kind in self._spent:
                return self._spent[kind][0] / self._spent[kind][1]
            if current is not None and enough and kind in current.part.kinds:
                return own
        if "" in self._spent:
            return self._spent[""][0] / self._spent[""][1]
        return own
