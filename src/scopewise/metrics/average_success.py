"""Average Success."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scopewise.data.rows import FORGET, SCOPES
from scopewise.metrics.base import Answered, RowMetric, Value, about, mean, token_accuracy
from scopewise.statistics import estimate, mean_of


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
        parts, means = [], []
        numbers: dict[str, int] = {}
        for scope in SCOPES:
            own = [row for row in rows if row.row.scope == scope]
            right = [token_accuracy(row) for row in own]
            parts.append(mean(right, "no answer token"))
            known = [
                (100.0 - x if scope == FORGET else x, row) for x, row in zip(right, own, strict=True) if x is not None
            ]
            means.append(([x for x, _ in known], [numbers.setdefault(about(row), len(numbers)) for _, row in known]))
        skipped = tuple(sentence for part in parts for sentence in part.skipped)
        if any(part.value is None for part in parts):
            return Value(None, (), skipped)
        found = [estimate(np.array([x]), np.array(instance), len(numbers)) for x, instance in means]
        interval = mean_of(found).interval((0.0, 100.0))
        return Value(interval.value, (), skipped, interval.low, interval.high)
