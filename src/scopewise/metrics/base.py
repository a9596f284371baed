"""The contract of a metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from scopewise.data.rows import FORGET, RETAIN
from scopewise.models.score import Answered


@dataclass(frozen=True)
class Value:
    """What a metric returns.

    Attributes:
        value: The measure, or None where no row could be measured (never NaN, never a silent zero).
        per_row: Its value for each measured row, in row order, where it is a mean over rows.
        skipped: Why rows were left out, one sentence per reason; empty where none was.
    """

    value: float | None
    per_row: tuple[float, ...] = ()
    skipped: tuple[str, ...] = ()


class Metric:
    """Base of the metrics: `measure`, and what it is over.

    Attributes:
        scope: `forget`, `retain` (rows of that scope), `both` (rows of both at once), or `each` (once for each scope).
        generates: Whether it needs `Answered.generated`.
        higher_is_better: Direction; None where it depends on the scope.
    """

    name: ClassVar[str]
    scope: ClassVar[Literal["forget", "retain", "both", "each"]]
    generates: ClassVar[bool] = False
    higher_is_better: ClassVar[bool | None]

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the measure of a model on these rows."""
        raise NotImplementedError

    def keyed(self, rows: Sequence[Answered], split: str) -> dict[str, Value]:
        """Return `metric/split` → value, over the rows that `scope` names; `each` has `metric/scope_split`."""
        if self.scope == "each":
            return {f"{self.name}/{s}_{split}": self.measure(_of(rows, s)) for s in (FORGET, RETAIN)}
        return {f"{self.name}/{split}": self.measure(rows if self.scope == "both" else _of(rows, self.scope))}


def mean(values: Sequence[float | None], reason: str) -> Value:
    """Return the mean over the rows that have a finite value; the others are counted as skipped for `reason`."""
    known = tuple(v for v in values if v is not None and math.isfinite(v))
    missing = len(values) - len(known)
    skipped = (f"{missing} of {len(values)} rows: {reason}",) if missing else ()
    if not values:
        skipped = ("no rows",)
    return Value(math.fsum(known) / len(known) if known else None, known, skipped)


def token_accuracy(row: Answered) -> float | None:
    """Return the share (0-100) of answer tokens that are the arg-max under teacher forcing; None without tokens."""
    return 100.0 * sum(row.hits) / len(row.hits) if row.hits else None


def _of(rows: Sequence[Answered], scope: str) -> list[Answered]:
    return [r for r in rows if r.row.scope == scope]
