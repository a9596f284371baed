"""Knowledge retention rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from annotated_types import Interval

from scopewise.metrics.base import Answered, RowMetric, Value, entity_coverage, mean


@dataclass(frozen=True, kw_only=True)
class KRR(RowMetric):
    """Knowledge retention rate: share of retain answers that the generated text still gives.

    Formula: mean over rows of [E > `threshold` and the true answer does not contradict the generated text]. E is the entity
    coverage (`entity_coverage`); contradiction is the arg-max class of `evaluate.entailment_model` (premise: the true
    answer, hypothesis: the generated text). Range 0-1, higher is better. Without that model only E decides, and the
    note says so. Rows whose answer has no entities are skipped.

    Source: Xu et al., arXiv:2502.11190, including the thresholds. Deviations: entities are found by spelling;
    zjunlp/unlearn 0800fd2 has other thresholds for short answers, and counts answers without entities as forgotten.

    Attributes:
        threshold: Entity coverage (0-1) above which an answer counts as retained. Default: the paper.
    """

    threshold: Annotated[float, Interval(ge=0, le=1)] = 0.3

    name = "krr"
    label = "KRR"
    better = "higher"
    headline = ("",)
    scope = "retain"
    needs = frozenset({"generated", "entailment_model"})

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the rate."""

        def one(row: Answered) -> float | None:
            coverage = entity_coverage(row)
            if coverage is None:
                return None
            return float(coverage > self.threshold and row.contradicted is not True)

        judged = any(row.contradicts is not None for row in rows)
        note = "" if judged else "no evaluate.entailment_model: entity coverage alone"
        return replace(mean([one(row) for row in rows], "no name or number in the answer"), note=note)
