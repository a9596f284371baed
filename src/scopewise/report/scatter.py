"""Scatter plot of Unlearn against Retention Success, with the Pareto front. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scopewise.report.columns import split_shown
from scopewise.report.figures import lines
from scopewise.report.run_folder import Run

WIDTH, HEIGHT = 760, 470
LEFT, RIGHT, TOP, BOTTOM = 56, 20, 20, 48
_LETTER, _LINE = 6.4, 14  # width of a letter and height of a line, in units of the plot
# Positions of a label relative to its point, in order of preference: offset and text anchor.
_PLACES = [
    (dx, dy, anchor)
    for far in (1.0, 2.2, 3.6, 5.0, 7.0)
    for dx, dy, anchor in (
        (9, -6, "start"),
        (-9, -6, "end"),
        (9, 15, "start"),
        (-9, 15, "end"),
        (0, -10 * far, "middle"),
        (0, 10 + 9 * far, "middle"),
        (9, -9 * far, "start"),
        (9, 9 * far + 6, "start"),
        (-9, -9 * far, "end"),
        (-9, 9 * far + 6, "end"),
    )
]


@dataclass(frozen=True)
class Point:
    """One method in the plane of Retention (across) and Unlearn Success (up), in percent.

    Attributes:
        label: Its name.
        role: `target`, `oracle` or `unlearned`.
        series: Index of its run.
        protocol: Its protocol, empty for target and oracle.
        retention: Value, low, high.
        unlearn: Value, low, high.
        on_front: Whether it is on the Pareto front of its run.
        shown: The label in the plot: points on top of each other share one, which the first of them has.
        label_at: x, y and text anchor of the label in the plot.
    """

    label: str
    role: str
    series: int
    protocol: str
    retention: tuple[float, float, float]
    unlearn: tuple[float, float, float]
    on_front: bool = False
    shown: str = ""
    label_at: tuple[float, float, str] = (0.0, 0.0, "start")


@dataclass(frozen=True)
class Axis:
    """Maps data to positions in the plot.

    Attributes:
        low: Lowest value shown.
        high: Highest.
        start: Position of the lowest.
        end: Position of the highest.
    """

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Return the position of a value."""
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)

    @property
    def ticks(self) -> list[float]:
        """About six round values for ticks."""
        step = _round_step((self.high - self.low) / 5)
        first = math.ceil(self.low / step - 1e-9)
        count = math.floor(self.high / step + 1e-9) - first + 1
        return [round((first + i) * step, 10) for i in range(count)]


@dataclass(frozen=True)
class Scatter:
    """The plot.

    Attributes:
        points: The methods.
        x: Axis of Retention Success.
        y: Axis of Unlearn Success.
        fronts: The Pareto front of each run, as the `points` of a polyline; empty for fewer than two points.
    """

    points: Sequence[Point]
    x: Axis
    y: Axis
    fronts: Sequence[str]


def points_of(runs: Sequence[Run]) -> list[Point]:
    """Return the methods that were evaluated on both scopes, with the Pareto front of each run marked."""
    found = []
    for series, run in enumerate(runs):
        split = split_shown(run.results)
        mine = []
        for line in lines(run):
            unlearn, retention = (line.figures.get(f"{name}_success/{split}") for name in ("unlearn", "retention"))
            if unlearn is None or retention is None:
                continue
            label = f"{line.label} [{run.name}]" if len(runs) > 1 else line.label
            spans = [
                (f.value, f.value if f.low is None else f.low, f.value if f.high is None else f.high)
                for f in (retention, unlearn)
            ]
            mine.append(Point(label, line.role, series, line.group[1], spans[0], spans[1]))
        best = front([(p.retention[0], p.unlearn[0]) for p in mine if p.role == "unlearned"])
        found += [replace(p, on_front=p.role == "unlearned" and (p.retention[0], p.unlearn[0]) in best) for p in mine]
    return found


def front(values: Sequence[tuple[float, float]]) -> set[tuple[float, float]]:
    """Return the Pareto front: the pairs for which no other is as high in both and higher in one."""
    return {v for v in values if not any(w[0] >= v[0] and w[1] >= v[1] and w != v for w in values)}


def scatter(runs: Sequence[Run]) -> Scatter | None:
    """Return the plot; None if nothing was evaluated on both scopes."""
    points = points_of(runs)
    if not points:
        return None
    x = _axis([v for p in points for v in p.retention], LEFT, WIDTH - RIGHT)
    y = _axis([v for p in points for v in p.unlearn], HEIGHT - BOTTOM, TOP)
    fronts = []
    for series in range(len(runs)):
        corners = sorted({(p.retention[0], p.unlearn[0]) for p in points if p.on_front and p.series == series})
        fronts.append(" ".join(f"{x.at(a)},{y.at(b)}" for a, b in corners) if len(corners) > 1 else "")
    return Scatter(_placed(points, x, y), x, y, fronts)


def _placed(points: Sequence[Point], x: Axis, y: Axis) -> list[Point]:
    """Place the labels so that they overlap no other label and no point, as far as possible."""
    marks = [(x.at(p.retention[0]), y.at(p.unlearn[0])) for p in points]
    taken = [(a - 6, b - 6, a + 6, b + 6) for a, b in marks]
    placed = []
    for point, (a, b), shown in zip(points, marks, _shown(points, marks), strict=True):
        if not shown:
            placed.append(point)
            continue
        width = _LETTER * len(shown)
        best: tuple[float, tuple[float, float, str], tuple[float, float, float, float]] | None = None
        for dx, dy, anchor in _PLACES:
            left = a + dx - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
            box = (left, b + dy - _LINE + 3, left + width, b + dy + 3)
            outside = box[0] < LEFT or box[2] > WIDTH - 2 or box[1] < 2 or box[3] > HEIGHT - BOTTOM
            cost = sum(_overlap(box, other) for other in taken) + (1e6 if outside else 0)
            if best is None or cost < best[0]:
                best = (cost, (round(a + dx, 1), round(b + dy, 1), anchor), box)
            if cost == 0:
                break
        assert best is not None
        taken.append(best[2])
        placed.append(replace(point, shown=shown, label_at=best[1]))
    return placed


def _shown(points: Sequence[Point], marks: Sequence[tuple[float, float]]) -> list[str]:
    """Return the labels: of marks that overlap, the first is named and the others are counted."""
    first: list[int] = []
    for i, (a, b) in enumerate(marks):
        near = (j for j in range(i) if first[j] == j and abs(marks[j][0] - a) < 5 and abs(marks[j][1] - b) < 5)
        first.append(next(near, i))
    found = []
    for i, point in enumerate(points):
        others = first.count(i) - 1
        found.append("" if first[i] != i else f"{point.label} and {others} more" if others else point.label)
    return found


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _axis(values: Sequence[float], start: int, end: int) -> Axis:
    low, high = min(values), max(values)
    room = max(2.0, 0.08 * (high - low))
    top = min(100.0, high + room) if high <= 100 else high + room
    return Axis(max(0.0, low - room), top, float(start), float(end))


def _round_step(rough: float) -> float:
    size = 10.0 ** math.floor(math.log10(rough))
    return next(m * size for m in (1, 2, 5, 10) if m * size >= rough * 0.999)
