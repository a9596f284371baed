"""Scores of the wrong answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from scopewise.data.rows import Row
from scopewise.metrics.base import Answered
from scopewise.metrics.needs.base import Need
from scopewise.models.score import Scored


class Perturbed(Need):
    """Fills `Answered.perturbed`: the scores of the row's wrong answers."""

    def answers(self, row: Row) -> Sequence[str]:
        """Return the wrong answers."""
        return row.perturbed

    def with_scores(self, answered: Answered, scores: Sequence[Scored]) -> Answered:
        """Return the row with their scores."""
        return replace(answered, perturbed=tuple(scores))
