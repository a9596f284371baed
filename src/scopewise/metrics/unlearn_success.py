"""Unlearn Success."""

from __future__ import annotations

from collections.abc import Sequence

from scopewise.metrics.base import Answered, RowMetric, Value, mean, token_accuracy


class UnlearnSuccess(RowMetric):
    """Share of answer tokens of the forget scope that the model gets wrong, in percent.

    Formula: 100 - mean over rows of 100 · mean over answer tokens of [argmax P(· | x, y_<t) = y_t]. Range 0-100, higher
    is better *up to the oracle*. Perfect recall scores 0, random answers about 100. A model that never saw the facts
    scores well below 100, because answers repeat words of the question. Rows without tokens are skipped.

    Source: arXiv:2407.01920 section 3; zjunlp/KnowUnDo 92aea2b `run_eval_lora.py` (`acc`).
    """

    name = "unlearn_success"
    label = "Unlearn"
    unit = "%"
    better = "to the oracle"
    headline = ("", "+direct")
    scope = "forget"
    bounds = (0.0, 100.0)

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the mean error per row."""
        accuracy = [token_accuracy(r) for r in rows]
        return mean([None if a is None else 100.0 - a for a in accuracy], "no answer token")
