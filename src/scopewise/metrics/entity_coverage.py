"""Entity coverage."""

from __future__ import annotations

from collections.abc import Sequence

from scopewise.metrics.base import Answered, RowMetric, Value, entity_coverage, mean


class EntityCoverage(RowMetric):
    """Share of the names, numbers and e-mail addresses of the true answer that occur in the generated text.

    Formula: mean over rows of |Ent(answer) ∩ text| / |Ent(answer)|. Ent are capitalised words (and runs of them),
    numbers and e-mail addresses that are not in the question, compared without case. Range 0-1: perfect recall scores
    1. It should be low on the forget scope, down to the oracle's value, and high elsewhere. Rows whose answer has no
    entities are skipped.

    Source: the entity coverage score of Xu et al., arXiv:2502.11190. Deviation: we find entities by spelling, where
    theirs uses a paid language model and an encoder.
    """

    name = "entity_coverage"
    label = "Entity coverage"
    better = "higher"
    better_on_forget = "to the oracle"
    scope = "each"
    needs = frozenset({"generated"})

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the mean coverage."""
        return mean([entity_coverage(row) for row in rows], "no name or number in the answer")
