"""Degeneration."""

from __future__ import annotations

from collections.abc import Sequence

from scopewise.metrics.base import Answered, RowMetric, Value, mean


class Degeneration(RowMetric):
    """Share of generated texts that are broken: empty, repetitive, or without words.

    Formula: mean over rows of [no letter or digit, or more than half of the word 3-grams repeat an earlier one, or
    fewer than half of the characters are letters, digits or spaces]. Range 0-1, lower is better on every scope: a
    forgotten answer may be wrong, but need not be broken. No row is skipped.

    Source: ours; arXiv:2502.11190 measures the same failure as linguistic score.
    """

    name = "degeneration"
    scope = "each"
    higher_is_better = False
    needs = frozenset({"generated"})

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the share of broken texts."""
        return mean([float(_broken(row.generated or "")) for row in rows], "")


def _broken(text: str) -> bool:
    words = text.lower().split()
    if not any(c.isalnum() for c in text):
        return True
    grams = list(zip(words, words[1:], words[2:], strict=False))
    if grams and 1 - len(set(grams)) / len(grams) > 0.5:
        return True
    return sum(c.isalnum() or c.isspace() for c in text) < 0.5 * len(text)
