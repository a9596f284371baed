"""Average Success."""

from __future__ import annotations

from collections.abc import Sequence

from scopewise.data.rows import FORGET
from scopewise.metrics.base import Metric, Value, mean, token_accuracy
from scopewise.models.score import Answered


class AverageSuccess(Metric):
    """Mean of Unlearn Success and Retention Success, in percent: the paper's headline.

    Formula: (Unlearn Success + Retention Success) / 2. Range 0-100, higher is better: the target and a model that
    answers at random both score about 50, a model that never saw the forget scope more. None where a scope has no row.

    Source: arXiv:2407.01920 section 3.
    """

    name = "average_success"
    scope = "both"
    higher_is_better = True

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the mean of the two; each counts half, however many rows its scope has."""
        accuracy = {True: [], False: []}  # type: dict[bool, list[float | None]]
        for row in rows:
            accuracy[row.row.scope == FORGET].append(token_accuracy(row))
        forget, retain = mean(accuracy[True], "no answer token"), mean(accuracy[False], "no answer token")
        skipped = forget.skipped + retain.skipped
        if forget.value is None or retain.value is None:
            return Value(None, (), skipped)
        return Value((100.0 - forget.value + retain.value) / 2, (), skipped)
