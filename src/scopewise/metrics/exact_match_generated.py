"""Exact match of the text generated greedily from the prompt."""

from __future__ import annotations

from collections.abc import Sequence

from scopewise.metrics.base import Answered, RowMetric, Value, mean


class ExactMatchGenerated(RowMetric):
    """Share of questions for which the generated text is exactly the true answer.

    Formula: mean over rows of [generated = answer], both in lower case and without white space at the ends. Range 0-1:
    perfect recall scores 1, unrelated text 0. It should be low on the forget scope and high elsewhere. One additional
    word, or a full stop, is no match, so a model that was not trained to stop at the end of the answer scores 0. True
    answers without a word are skipped.

    Source: LUME, arXiv:2502.15097, and SemEval-2025 task 4 (knowledge questions).
    """

    name = "exact_match_generated"
    label = "Exact match"
    better = "higher"
    better_on_forget = "to the oracle"
    scope = "each"
    needs = frozenset({"generated"})

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the share."""

        def one(row: Answered) -> float | None:
            if not any(c.isalnum() for c in row.row.answer):
                return None
            return float((row.generated or "").strip().lower() == row.row.answer.strip().lower())

        return mean([one(row) for row in rows], "no word in the answer")
