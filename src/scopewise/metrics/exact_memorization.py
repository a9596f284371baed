"""Exact memorization."""

from __future__ import annotations

from collections.abc import Sequence

from scopewise.metrics.base import Answered, RowMetric, Value, mean, token_accuracy


class ExactMemorization(RowMetric):
    """Share of answer tokens that are the arg-max under teacher forcing.

    Formula: mean over rows of mean over answer tokens of [argmax P(· | x, y_<t) = y_t]; this is Retention Success as a
    share. Range 0-1: perfect recall scores 1, a random model about 0. It should be low on the forget scope, down to the
    oracle's value. The end-of-sequence token is not counted. Rows without tokens are skipped.

    Source: Tirumala et al., arXiv:2205.10770; locuslab/open-unlearning d3d7cf9 `exact_memorization` (equal).
    """

    name = "exact_memorization"
    label = "Exact memorization"
    better = "higher"
    better_on_forget = "to the oracle"
    scope = "each"

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the mean share."""
        accuracy = [token_accuracy(row) for row in rows]
        return mean([None if a is None else a / 100 for a in accuracy], "no answer token")
