"""Probability among options."""

from __future__ import annotations

from collections.abc import Sequence

from scopewise.metrics.base import Answered, RowMetric, Value, answer_probability, mean


class ProbabilityNormalised(RowMetric):
    """Probability of the true answer as a share of the probabilities of all options.

    Formula: mean over rows of P(y) / (P(y) + Σ P(wrong)), each P length-normalised as in `probability`. Range 0-1: 1 if
    the model is certain of the truth, 1/(number of options) if it is indifferent. It should be low on the forget scope
    and high elsewhere. Rows without wrong answers are skipped.

    Source: TOFU, arXiv:2401.06121 (real authors and world facts); locuslab/open-unlearning d3d7cf9
    `probability_w_options` (equal).
    """

    name = "probability_normalised"
    label = "Normalised probability"
    better = "higher"
    better_on_forget = "to the oracle"
    scope = "each"
    needs = frozenset({"perturbed"})

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the mean share."""

        def one(row: Answered) -> float | None:
            right = answer_probability(row.scored.log_probs)
            wrong = [answer_probability(w.log_probs) for w in row.perturbed]
            if right is None or not wrong or None in wrong:
                return None
            return right / (right + sum(p for p in wrong if p is not None) + 1e-10)

        return mean([one(row) for row in rows], "no wrong answer to choose among")
