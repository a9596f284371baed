"""Entity coverage."""

from __future__ import annotations

from collections.abc import Sequence

from scopewise.metrics.base import Answered, RowMetric, Value, entity_coverage, mean


class EntityCoverage(RowMetric):
    """Share of the names, numbers and addresses of the true answer that the generated text has.

    Formula: mean over rows of |Ent(answer) ∩ text| / |Ent(answer)|; Ent are capitalised words and runs of them,
    numbers and email addresses that the question does not have, compared without case. Range 0-1: perfect recall 1;
    low (down to the oracle's) is wanted on the forget scope, high elsewhere. A row whose answer has none is skipped.

    Source: the entity coverage score of Xu et al., arXiv:2502.11190, with entities by their spelling in place of a
    paid language model and an encoder.
    """

    name = "entity_coverage"
    scope = "each"
    higher_is_better = None
    needs = frozenset({"generated"})

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the mean coverage."""
        return mean([entity_coverage(row) for row in rows], "no name or number in the answer")
