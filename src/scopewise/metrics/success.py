"""Which answer tokens are the arg-max under teacher forcing: the Successes, exact memorization, extraction strength."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scopewise.data.rows import FORGET, SCOPES
from scopewise.metrics.base import Answered, KnowledgeMetric, RowMetric, Value, about, mean, token_accuracy
from scopewise.statistics import estimate, mean_of


class UnlearnSuccess(RowMetric):
    """Share of answer tokens of the forget scope that the model gets wrong, in percent.

    Formula: 100 - mean over rows of 100 · mean over answer tokens of [argmax P(· | x, y_<t) = y_t]. Range 0-100, higher
    is better *up to the oracle*. Perfect recall scores 0, random answers about 100. A model that never saw the facts
    scores well below 100, because answers repeat words of the question. Rows without tokens are skipped.

    Source: arXiv:2407.01920 section 3; zjunlp/KnowUnDo 92aea2b `run_eval_lora.py` (`acc`).
    """

    name = "unlearn_success"
    label = "Unlearn"
    unit = "%"
    better = "to the oracle"
    headline = ("", "+direct")
    scope = "forget"
    bounds = (0.0, 100.0)

    def score(self, row: Answered) -> float | None:
        """Return the error."""
        accuracy = token_accuracy(row)
        return None if accuracy is None else 100.0 - accuracy


class RetentionSuccess(RowMetric):
    """Share of answer tokens of the retain scope that the model gets right, in percent.

    Formula: mean over rows of 100 · mean over answer tokens of [argmax P(· | x, y_<t) = y_t]. Range 0-100, higher is
    better. Perfect recall scores 100, a random model about 0, a model that never saw the facts in between. Rows without
    tokens are skipped.

    Source: arXiv:2407.01920 section 3; zjunlp/KnowUnDo 92aea2b `run_eval_lora.py` (`acc`).
    """

    name = "retention_success"
    label = "Retention"
    unit = "%"
    better = "higher"
    headline = ("", "+direct")
    scope = "retain"
    bounds = (0.0, 100.0)

    def score(self, row: Answered) -> float | None:
        """Return the accuracy."""
        return token_accuracy(row)


class AverageSuccess(RowMetric):
    """Mean of Unlearn Success and Retention Success, in percent; the paper's main number.

    Formula: (Unlearn Success + Retention Success) / 2. Range 0-100, higher is better. The target and a model that
    answers at random both score about 50; a model that never saw the forget scope scores more. None if a scope has no
    rows.

    Source: arXiv:2407.01920 section 3.
    """

    name = "average_success"
    label = "Average"
    unit = "%"
    better = "higher"
    headline = ("",)
    scope = "both"

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the mean of the two, with equal weight, however many rows each scope has."""
        parts, means = [], []
        numbers: dict[str, int] = {}
        for scope in SCOPES:
            own = [row for row in rows if row.row.scope == scope]
            right = [token_accuracy(row) for row in own]
            parts.append(mean(right, "no answer token"))
            known = [
                (100.0 - x if scope == FORGET else x, row) for x, row in zip(right, own, strict=True) if x is not None
            ]
            means.append(([x for x, _ in known], [numbers.setdefault(about(row), len(numbers)) for _, row in known]))
        skipped = tuple(sentence for part in parts for sentence in part.skipped)
        if any(part.value is None for part in parts):
            return Value(None, (), skipped)
        found = [estimate(np.array([x]), np.array(instance), len(numbers)) for x, instance in means]
        interval = mean_of(found).interval((0.0, 100.0))
        return Value(interval.value, (), skipped, interval.low, interval.high)


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
