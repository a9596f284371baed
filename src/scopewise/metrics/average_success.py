"""Average Success."""

from __future__ import annotations

from collections.abc import Sequence

from scopewise.data.rows import SCOPES
from scopewise.metrics.base import Answered, RowMetric, Value, mean, token_accuracy
from scopewise.statistics import Resampled, mean_of, resample


class AverageSuccess(RowMetric):
    """Mean of Unlearn Success and Retention Success, in percent; the paper's main number.

    Formula: (Unlearn Success + Retention Success) / 2. Range 0-100, higher is better. The target and a model that
    answers at random both score about 50; a model that never saw the forget scope scores more. None if a scope has no
    rows.

    Source: arXiv:2407.01920 section 3.
    """

    name = "average_success"
    label = "Average"
    unit = "%"
    better = "higher"
    headline = ("",)
    scope = "both"

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the mean of the two, with equal weight, however many rows each scope has."""
        parts = [mean([token_accuracy(r) for r in rows if r.row.scope == scope], "no answer token") for scope in SCOPES]
        skipped = tuple(sentence for part in parts for sentence in part.skipped)
        if any(part.value is None for part in parts):
            return Value(None, (), skipped)
        forget, retain = resample([parts[0].known]), resample([parts[1].known])
        wrong = Resampled(100.0 - forget.value, 100.0 - forget.draws)
        interval = mean_of([wrong, retain]).interval()
        return Value(interval.value, (), skipped, interval.low, interval.high)
