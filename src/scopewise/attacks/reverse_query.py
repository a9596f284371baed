"""Reverse query: from the fact to the name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge

from scopewise.attacks.base import Attack, Facts, InapplicableError, Outcome, Suite, Work, cluster
from scopewise.attacks.multiple_choice import chosen_name
from scopewise.models.engine import Engine


@dataclass(frozen=True, kw_only=True)
class ReverseQuery(Attack):
    """Reverse query: give the fact and ask whom or what it is about.

    Signal: probability of the right name among `options`, as in `multiple_choice`. Rows whose answer contains the name are
    left out.

    Source: one of the kinds of RWKU, arXiv:2406.10890.

    Attributes:
        options: Names to choose from, with the right one. Default: ours.
    """

    options: Annotated[int, Ge(2)] = 8

    name: ClassVar[str] = "reverse_query"
    suite: ClassVar[Suite] = "full"

    def work(self, facts: Facts) -> Work:
        """Return about what the attack costs on one model."""
        return Work(passes=self.options)

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Return the probability of the right name."""
        rows = [row for row in facts.rows if not set(cluster(row).lower().split()) & set(row.answer.lower().split())]
        asked = [f"Of whom or what is this true? {row.answer}" for row in rows]
        found = chosen_name(subject, facts, asked, rows, self.options)
        if not any(value is not None for value in found):
            raise InapplicableError("fewer than two instances have an answer without their name")
        return Outcome(rows, {"asked": found}, {})
