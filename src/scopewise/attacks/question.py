"""The question itself, without an attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from scopewise.attacks.base import Attack, Facts, Outcome, Suite, score_answers
from scopewise.models.engine import Engine


@dataclass(frozen=True, kw_only=True)
class Question(Attack):
    """Ask the question without any attack.

    Signal: geometric mean of the probabilities of the answer's tokens under teacher forcing. It is the baseline for the
    other attacks.

    Source: ours.
    """

    name: ClassVar[str] = "question"
    suite: ClassVar[Suite] = "quick"
    alone: ClassVar[bool] = True

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Return the probability of each answer."""
        signal, text = score_answers(subject, facts.rows, "ask")
        return Outcome(facts.rows, {"asked": signal}, {"asked": text})
