"""The first token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from scopewise.metrics.base import Answered, RowMetric, Value, mean
from scopewise.metrics.columns import Better


class FirstToken(RowMetric):
    """Share (0-1) of answers whose first token is the most probable one, given the question.

    Perfect recall 1, a uniform model 0. A row without tokens is left out.
    """

    name: ClassVar[str] = "first_token"
    label: ClassVar[str] = "First token"
    better: ClassVar[Better] = "higher"
    better_on_forget: ClassVar[Better] = "to the oracle"
    headline: ClassVar[tuple[str, ...]] = ("forget", "retain")
    scope: ClassVar[Literal["each"]] = "each"

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the mean over rows."""
        return mean([float(row.hits[0]) if row.hits else None for row in rows], "no answer token")
