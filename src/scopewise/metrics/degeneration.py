"""Degeneration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Interval

from scopewise.metrics.base import Answered, RowMetric, Value, mean, word_grams


@dataclass(frozen=True, kw_only=True)
class Degeneration(RowMetric):
    """Share of generated texts that are broken: empty, repetitive, or without words.

    Formula: mean over rows of [no letter or digit, or more than `repeated_fraction` of the word n-grams repeat an
    earlier one, or less than `legible_fraction` of the characters are letters, digits or spaces]. Range 0-1, lower is
    better on every scope: a forgotten answer may be wrong, but need not be broken. No row is skipped.

    Source: ours; arXiv:2502.11190 measures the same failure as linguistic score.

    Attributes:
        words: Length of the word n-grams. Default: ours.
        repeated_fraction: Share (0-1) of n-grams that repeat an earlier one, above which a text is a loop. Default: ours.
        legible_fraction: Share (0-1) of letters, digits and spaces, below which a text has no words. Default: ours.
    """

    words: Annotated[int, Ge(1)] = 3
    repeated_fraction: Annotated[float, Interval(ge=0, le=1)] = 0.5
    legible_fraction: Annotated[float, Interval(ge=0, le=1)] = 0.5

    name = "degeneration"
    label = "Degeneration"
    better = "lower"
    scope = "each"
    needs = frozenset({"generated"})

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the share of broken texts."""
        return mean([float(self._broken(row.generated or "")) for row in rows], "")

    def _broken(self, text: str) -> bool:
        if not any(c.isalnum() for c in text):
            return True
        grams = word_grams(text, self.words)
        if grams and 1 - len(set(grams)) / len(grams) > self.repeated_fraction:
            return True
        return sum(c.isalnum() or c.isspace() for c in text) < self.legible_fraction * len(text)
