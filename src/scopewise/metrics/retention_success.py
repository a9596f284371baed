"""Retention Success."""

from __future__ import annotations

from collections.abc import Sequence

from scopewise.metrics.base import Answered, RowMetric, Value, mean, token_accuracy


class RetentionSuccess(RowMetric):
    """Share of answer tokens of the retain scope that the model gets right, in percent.

    Formula: mean over rows of 100 · mean over answer tokens of [argmax P(· | x, y_<t) = y_t]. Range 0-100, higher is
    better. Perfect recall scores 100, a random model about 0, a model that never saw the facts in between. Rows without
    tokens are skipped.

    Source: arXiv:2407.01920 section 3; zjunlp/KnowUnDo 92aea2b `run_eval_lora.py` (`acc`).
    """

    name = "retention_success"
    label = "Retention"
    unit = "%"
    better = "higher"
    headline = ("", "+direct")
    scope = "retain"
    bounds = (0.0, 100.0)

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the mean accuracy per row."""
        return mean([token_accuracy(r) for r in rows], "no answer token")
