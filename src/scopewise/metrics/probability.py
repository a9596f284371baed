"""Probability of the answer."""

from __future__ import annotations

from collections.abc import Sequence

from scopewise.metrics.base import Answered, RowMetric, Value, answer_probability, mean


class Probability(RowMetric):
    """Probability of the true answers, normalised by their length.

    Formula: mean over rows of exp(mean over answer tokens of log P(y_t | x, y_<t)), with the end of sequence where
    `evaluate.eos` counts it. Range 0-1: perfect recall 1, a random model 1/V, one that never saw the facts in
    between; low is wanted on the forget scope, high elsewhere. A row without tokens is skipped.

    Source: TOFU, Maini et al., arXiv:2401.06121; locuslab/open-unlearning d3d7cf9 `probability` (equal, `eos: true`).
    """

    name = "probability"
    scope = "each"
    higher_is_better = None

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the mean of the rows' geometric mean probabilities."""
        return mean([answer_probability(row.scored.log_probs) for row in rows], "no answer token")
