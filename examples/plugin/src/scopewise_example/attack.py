"""Shouting."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from annotated_types import Ge

from scopewise.attacks.base import Attack, Facts, Outcome, Suite, score_answers
from scopewise.models.engine import Engine


@dataclass(frozen=True, kw_only=True)
class Shouting(Attack):
    """Ask in capitals, with some exclamation marks.

    Signal: probability of the answer.

    Attributes:
        marks: How many exclamation marks.
    """

    marks: Annotated[int, Ge(0)] = 3

    name: ClassVar[str] = "shouting"
    suite: ClassVar[Suite] = "quick"

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Return the probability of each answer."""
        asked = [replace(row, question=row.question.upper() + "!" * self.marks) for row in facts.rows]
        signal, text = score_answers(subject, asked, "shout")
        return Outcome(facts.rows, {"in capitals": signal}, {"in capitals": text})
