"""Probability of the answer."""

from __future__ import annotations

from collections.abc import Sequence

from scopewise.metrics.base import Answered, RowMetric, Value, answer_probability, mean


class Probability(RowMetric):
    """Length-normalised probability of the true answers.

    Formula: mean over rows of exp(mean over answer tokens of log P(y_t | x, y_<t)). It includes the end-of-sequence
    token if `evaluate.eos` is set. Range 0-1: perfect recall scores 1, a random model 1/V, a model that never saw the
    facts in between. It should be low on the forget scope and high elsewhere. Rows without tokens are skipped.

    Source: TOFU, Maini et al., arXiv:2401.06121; locuslab/open-unlearning d3d7cf9 `probability` (equal with `eos:
    true`).
    """

    name = "probability"
    label = "Probability"
    better = "higher"
    better_on_forget = "to the oracle"
    scope = "each"

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the mean of the rows' geometric mean probabilities."""
        return mean([answer_probability(row.scored.log_probs) for row in rows], "no answer token")
