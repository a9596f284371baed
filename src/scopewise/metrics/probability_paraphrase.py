"""Probability of the paraphrase."""

from __future__ import annotations

from collections.abc import Sequence

from scopewise.metrics.base import Answered, RowMetric, Value, answer_probability, mean


class ProbabilityParaphrase(RowMetric):
    """Length-normalised probability of a paraphrase of the true answer: it tests knowledge rather than wording.

    Formula: as `probability`, but of the row's paraphrase. Range 0-1; should be low on the forget scope, down to the
    oracle's value, and high elsewhere. Rows without a paraphrase are skipped.

    Source: TOFU, arXiv:2401.06121; locuslab/open-unlearning d3d7cf9 `probability` on `paraphrased_answer` (equal).
    """

    name = "probability_paraphrase"
    label = "Probability of the paraphrase"
    better = "higher"
    better_on_forget = "to the oracle"
    scope = "each"
    needs = frozenset({"paraphrase"})

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the mean of the rows' geometric mean probabilities."""
        found = [answer_probability(row.paraphrase.log_probs) if row.paraphrase else None for row in rows]
        return mean(found, "no paraphrase")
