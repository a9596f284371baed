"""The table as numbers: one line per method, one column per metric, each a mean with its interval. Imports no torch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scopewise.report.columns import COSTS, GAP, Column, columns
from scopewise.report.run_folder import Run


@dataclass(frozen=True)
class Figure:
    """The value of a metric for a method.

    Attributes:
        value: Mean over rows and seeds (for costs the median over seeds).
        low: Lower end of its 95 % interval; None without an interval.
        high: Upper end.
        spread: Standard deviation over seeds; None for one seed.
    """

    value: float
    low: float | None = None
    high: float | None = None
    spread: float | None = None

    @property
    def text(self) -> str:
        """The value as the table shows it."""
        return number(self.value)

    @property
    def interval(self) -> str:
        """The interval, or else the deviation over seeds; empty without both."""
        if self.low is not None and self.high is not None:
            return f"{number(self.low)} to {number(self.high)}"
        if self.spread is None:
            return ""
        return f"± {number(self.spread)}" if self.spread >= 0.005 else "± <0.01"


@dataclass(frozen=True)
class Line:
    """A method (under a protocol) in the table.

    Attributes:
        label: Its name.
        role: `target`, `oracle` or `unlearned`.
        group: Method and protocol.
        seeds: The evaluated seeds.
        figures: Column key → figure, without metrics that were not evaluated.
    """

    label: str
    role: str
    group: tuple[str, str]
    seeds: Sequence[int]
    figures: Mapping[str, Figure]


def lines(run: Run) -> list[Line]:
    """Return the lines of the table, in its order."""
    compared = {(c["method"], c["protocol"] or ""): c for c in run.results.get("comparisons", [])}
    shown = columns(run.results)
    found = []
    for group, models in run.groups().items():
        rows = [model.row for model in models]
        own = models[0].values if len(models) == 1 else {}  # the interval of one model does not cover other seeds
        figures = {
            column.key: figure
            for column in shown
            if (figure := figure_of(column, rows, compared.get(group), own.get(column.key))) is not None
        }
        seeds = [model.row["seed"] for model in models]
        found.append(Line(run.label(group), models[0].row["model"], group, seeds, figures))
    return found


def figure_of(
    column: Column,
    rows: Sequence[Mapping[str, Any]],
    comparison: Mapping[str, Any] | None,
    own: Mapping[str, Any] | None = None,
) -> Figure | None:
    """Return the figure of a column for a method; None if it was not measured.

    Args:
        column: The column.
        rows: The method's rows of `results.json`, one per seed.
        comparison: Its entry of `comparisons`, which has the intervals over seeds.
        own: Object with the interval of its only row, for values that are not compared.
    """
    key = column.key
    if column is GAP:
        gap = comparison["oracle_gap"] if comparison else None
        return None if gap is None else Figure(gap["value"], gap["low"], gap["high"])
    if key in COSTS:  # costs are noisy, so their median is shown instead of mean and deviation
        costs = [row["cost"][key] * column.scale for row in rows if row["cost"].get(key) is not None]
        return Figure(statistics.median(costs)) if costs else None
    known = [float(row["metrics"][key]) for row in rows if row["metrics"].get(key) is not None]
    if not known:
        return None
    spread = statistics.stdev(known) if len(known) > 1 else None
    name, _, split = key.partition("/")
    compared = comparison is not None and name in comparison["success"] and split == comparison["split"]
    interval = comparison["success"][name] if comparison is not None and compared else own or {}
    return Figure(statistics.fmean(known), interval.get("low"), interval.get("high"), spread)


def number(value: float) -> str:
    """Return a number in as few digits as a reader needs: 2 decimals from 0.1 on, none from 1000 on, else 3 digits."""
    size = abs(value)
    if 0.1 <= size < 1000:
        return f"{value:.2f}"
    return f"{value:.0f}" if 1000 <= size < 1e5 else f"{value:.3g}"
