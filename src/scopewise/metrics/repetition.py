"""Repetition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from scopewise.metrics.base import Answered, RowMetric, Value, mean, word_grams


@dataclass(frozen=True, kw_only=True)
class Repetition(RowMetric):
    """Share of word n-grams in the generated text that repeat an earlier one.

    Formula: mean over rows of 1 - (distinct n-grams) / (n-grams), n-grams of `words` words of the generated text. Range
    0-1, lower is better: normal prose is near 0, a text that repeats one word is near 1. Texts of fewer words are
    skipped (`degeneration` counts the empty ones).

    Source: rep-n of Welleck et al., arXiv:1908.04319, with n = 3 over words.

    Attributes:
        words: Length of the word n-grams. Default: ours.
    """

    words: Annotated[int, Ge(1)] = 3

    name = "repetition"
    label = "Repetition"
    better = "lower"
    scope = "each"
    needs = frozenset({"generated"})

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the mean share of repeated n-grams."""

        def one(row: Answered) -> float | None:
            grams = word_grams(row.generated or "", self.words)
            return 1 - len(set(grams)) / len(grams) if grams else None

        return mean([one(row) for row in rows], f"fewer than {self.words} words")
