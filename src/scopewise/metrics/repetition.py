"""Repetition."""

from __future__ import annotations

from collections.abc import Sequence

from scopewise.metrics.base import Answered, RowMetric, Value, mean


class Repetition(RowMetric):
    """Share of word 3-grams in the generated text that repeat an earlier one.

    Formula: mean over rows of 1 - (distinct word 3-grams) / (word 3-grams) of the generated text. Range 0-1, lower is
    better: normal prose is near 0, a text that repeats one word is near 1. Texts of fewer than three words are skipped
    (`degeneration` counts the empty ones).

    Source: rep-n of Welleck et al., arXiv:1908.04319, with n = 3 over words.
    """

    name = "repetition"
    scope = "each"
    higher_is_better = False
    needs = frozenset({"generated"})

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the mean share of repeated 3-grams."""

        def one(row: Answered) -> float | None:
            words = (row.generated or "").lower().split()
            grams = list(zip(words, words[1:], words[2:], strict=False))
            return 1 - len(set(grams)) / len(grams) if grams else None

        return mean([one(row) for row in rows], "fewer than three words")
