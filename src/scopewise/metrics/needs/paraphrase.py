"""Score of the paraphrase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from scopewise.data.rows import Row
from scopewise.metrics.base import Answered
from scopewise.metrics.needs.base import Need
from scopewise.models.score import Scored


class Paraphrase(Need):
    """Fills `Answered.paraphrase`: the scores of the row's paraphrase, if it has one."""

    def answers(self, row: Row) -> Sequence[str]:
        """Return the paraphrase."""
        return (row.paraphrase,) if row.paraphrase else ()

    def with_scores(self, answered: Answered, scores: Sequence[Scored]) -> Answered:
        """Return the row with its score."""
        return replace(answered, paraphrase=scores[0] if scores else None)
