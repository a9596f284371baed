"""Multiple choice among answers, and among names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from annotated_types import Ge

from scopewise.attacks.base import Attack, Facts, InapplicableError, Outcome, Work, cluster, mean_of_known
from scopewise.data.rows import Row
from scopewise.models.engine import Engine


@dataclass(frozen=True, kw_only=True)
class MultipleChoice(Attack):
    """Multiple choice: the true answer among answers of other instances to a similar question.

    Signal: probability of the right option, from the options' mean token log-probabilities, normalised over the
    options. The full suite also lists the options in the question, and averages over the rotations of their order,
    because models prefer certain positions. The wrong options are answers of the forget scope (of the same attribute if
    the data name attributes), since any model would recognise an answer of the retain scope.

    Source: one of the kinds of RWKU, arXiv:2406.10890; options are compared by text, as in lm-evaluation-harness.

    Attributes:
        options: Answers to choose from, with the right one. Default: four, as in RWKU.
    """

    options: Annotated[int, Ge(2)] = 4

    name = "multiple_choice"
    suite = "quick"

    def work(self, facts: Facts) -> Work:
        """Return about what the attack costs on one model."""
        return Work(passes=self.options * (1 + self.options * facts.full))

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Return the probability of the right option, with and without listing the options."""
        options = [[row.answer, *(r.answer for r in facts.distractors(row, self.options - 1))] for row in facts.rows]
        plain = chosen(subject, [row.question for row in facts.rows], facts.rows, options, "choose")
        signals = {"not listed": plain}
        if facts.full:
            turns = []
            for turn in range(self.options):
                asked = [
                    f"{row.question} Choose one: " + " / ".join(o[turn % len(o) :] + o[: turn % len(o)])
                    for row, o in zip(facts.rows, options, strict=True)
                ]
                turns.append(chosen(subject, asked, facts.rows, options, f"choose, order {turn + 1}"))
            signals["listed"] = [mean_of_known(values) for values in zip(*turns, strict=True)]
        return Outcome(facts.rows, signals, {})


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

    name = "reverse_query"
    suite = "full"

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


def chosen(
    subject: Engine, questions: Sequence[str], rows: Sequence[Row], options: Sequence[Sequence[str]], what: str
) -> list[float | None]:
    """Return the probability of each row's first option among its options; None if it has only one."""
    asked = [
        replace(row, question=question, answer=option)
        for row, question, texts in zip(rows, questions, options, strict=True)
        for option in texts
    ]
    scored = iter(subject.score([item.pair for item in subject.encode(asked)], what))
    found: list[float | None] = []
    for texts in options:
        means = [math.fsum(s.log_probs) / len(s.log_probs) for s in (next(scored) for _ in texts)]
        top = max(means)
        weights = [math.exp(m - top) for m in means]
        found.append(weights[0] / math.fsum(weights) if len(weights) > 1 else None)
    return found


def chosen_name(
    subject: Engine, facts: Facts, questions: Sequence[str], rows: Sequence[Row], count: int
) -> list[float | None]:
    """Return the probability of each row's instance among up to `count` names; none if there are fewer than two names."""
    names = list(dict.fromkeys(cluster(row) for row in facts.rows))
    if len(names) < 2 or not rows:
        return [None] * len(rows)
    options = []
    for row in rows:
        at = names.index(cluster(row))
        options.append([names[(at + i) % len(names)] for i in range(min(count, len(names)))])
    return chosen(subject, questions, rows, options, "ask for the name")
