"""Extraction strength."""

from __future__ import annotations

from collections.abc import Sequence

from scopewise.metrics.base import Answered, RowMetric, Value, mean


class ExtractionStrength(RowMetric):
    """How little of an answer has to be given for the model to give the rest.

    Formula: mean over rows of 1 - k/n, k the smallest number of answer tokens after which every arg-max token is
    right. Range 0-1: perfect recall 1; low is wanted on the forget scope, high elsewhere. Where even the last token
    is wrong the value is 1/n, as in the reference code (k is n - 1 there at most). Without the end of sequence. A row
    without tokens is skipped.

    Source: Carlini et al., arXiv:2012.07805; locuslab/open-unlearning d3d7cf9 `extraction_strength` (equal; there an
    empty answer counts 0).
    """

    name = "extraction_strength"
    scope = "each"
    higher_is_better = None

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the mean strength."""

        def one(row: Answered) -> float | None:
            if not row.hits:
                return None
            n = len(row.hits)
            wrong = max((i for i, hit in enumerate(row.hits) if not hit), default=-1)
            return 1 - min(wrong + 1, n - 1) / n

        return mean([one(row) for row in rows], "no answer token")
