"""Scores under a reference model that never saw the forget scope."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from scopewise.data.prompt import Encoded
from scopewise.metrics.base import Answered
from scopewise.metrics.needs.base import Need
from scopewise.models.score import Pair, Scored


class ReferenceModel(Need):
    """Fills `Answered.reference_log_probs` with `evaluate.reference_model`; without it they stay empty."""

    scored: Mapping[Pair, Scored] = {}

    def prepare(self, items: Sequence[Encoded]) -> None:
        """Score all rows."""
        if self.reference is not None:
            pairs = [item.pair for item in items]
            self.scored = dict(zip(pairs, self.reference.score(pairs), strict=True))

    def fill(self, rows: list[Answered], items: Sequence[Encoded]) -> list[Answered]:
        """Return the rows with that model's log-probabilities."""
        if not self.scored:
            return rows
        return [
            replace(row, reference_log_probs=self.scored[item.pair].log_probs)
            for row, item in zip(rows, items, strict=True)
        ]
