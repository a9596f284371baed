"""Extraction strength."""

from __future__ import annotations

from collections.abc import Sequence

from scopewise.metrics.base import Answered, RowMetric, Value, mean


class ExtractionStrength(RowMetric):
    """How small a prefix of the answer is enough for the model to continue it correctly.

    Formula: mean over rows of 1 - k/n, where k is the smallest number of given answer tokens after which every arg-max
    token is right. Range 0-1: perfect recall scores 1. It should be low on the forget scope and high elsewhere. If even
    the last token is wrong, the value is 1/n, as in the reference code (where k is at most n - 1). The end-of-sequence
    token is not counted. Rows without tokens are skipped.

    Source: Carlini et al., arXiv:2012.07805; locuslab/open-unlearning d3d7cf9 `extraction_strength` (equal; there an
    empty answer counts as 0).
    """

    name = "extraction_strength"
    label = "Extraction strength"
    better = "higher"
    better_on_forget = "to the oracle"
    scope = "each"

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the mean strength."""

        def one(row: Answered) -> float | None:
            if not row.hits:
                return None
            n = len(row.hits)
            wrong = max((i for i, hit in enumerate(row.hits) if not hit), default=-1)
            return 1 - min(wrong + 1, n - 1) / n

        return mean([one(row) for row in rows], "no answer token")
