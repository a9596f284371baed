"""Memorization: how much of an answer comes out token by token."""

from __future__ import annotations

from scopewise.metrics.base import Answered, KnowledgeMetric, token_accuracy


class ExactMemorization(KnowledgeMetric):
    """Share of answer tokens that are the arg-max under teacher forcing.

    Formula: mean over rows of mean over answer tokens of [argmax P(· | x, y_<t) = y_t]; this is Retention Success as a
    share. Range 0-1: perfect recall scores 1, a random model about 0. The end-of-sequence token is not counted. Rows
    without tokens are skipped.

    Source: Tirumala et al., arXiv:2205.10770; locuslab/open-unlearning d3d7cf9 `exact_memorization` (equal).
    """

    name = "exact_memorization"
    label = "Exact memorization"

    def score(self, row: Answered) -> float | None:
        """Return the share."""
        accuracy = token_accuracy(row)
        return None if accuracy is None else accuracy / 100


class ExtractionStrength(KnowledgeMetric):
    """How small a prefix of the answer is enough for the model to continue it correctly.

    Formula: mean over rows of 1 - k/n, where k is the smallest number of given answer tokens after which every arg-max
    token is right. Range 0-1: perfect recall scores 1. If even the last token is wrong, the value is 1/n, as in the
    reference code (where k is at most n - 1). The end-of-sequence token is not counted. Rows without tokens are
    skipped.

    Source: Carlini et al., arXiv:2012.07805; locuslab/open-unlearning d3d7cf9 `extraction_strength` (equal; there an
    empty answer counts as 0).
    """

    name = "extraction_strength"
    label = "Extraction strength"

    def score(self, row: Answered) -> float | None:
        """Return the strength."""
        n = len(row.hits)
        wrong = max((i for i, hit in enumerate(row.hits) if not hit), default=-1)
        return 1 - min(wrong + 1, n - 1) / n if n else None
