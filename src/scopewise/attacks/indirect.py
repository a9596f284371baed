"""Attacks that ask otherwise: choose among answers or names, from the fact to the name, by another fact or name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Annotated

from annotated_types import Ge

from scopewise.attacks.base import (
    Attack,
    Facts,
    InapplicableError,
    Outcome,
    Work,
    cluster,
    distinctive,
    mean_of_known,
    score_answers,
    words,
)
from scopewise.data.rows import Row
from scopewise.documents import parse_yaml
from scopewise.errors import ConfigError
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


@dataclass(frozen=True, kw_only=True)
class Indirect(Attack):
    """Ask around the question that was unlearned: by an alias, by way of another fact (one hop), or from fact to name.

    Settings: *alias* puts initials or only the last name in place of the instance's name. *one hop* puts a description by a
    retain fact of the same instance in its place. *inverse* gives the fact and asks for the name, among `options`. *own* asks
    the questions that a row brings in its field `indirect`. Templates are applied where the relation can be recognised, by
    the row's attribute or words of its question. A question that contains a distinctive word of the answer is left out.

    Signal: probability of the answer; for *inverse* that of the right name among the options; for *own* the largest of the
    row's questions.

    How to read it: a leak here, where `question` holds, means that only the trained wording was unlearned. Small models
    rarely answer inverse questions at all; target and oracle then hardly differ, and the verdict is *not measurable*.

    Source: the kinds of questions in RWKU (arXiv:2406.10890) and in multi-hop evaluations of unlearning; the templates are
    ours.

    Attributes:
        options: Names to choose among, the right one included. Default: ours.
    """

    options: Annotated[int, Ge(2)] = 8

    name = "indirect"
    suite = "full"

    def work(self, facts: Facts) -> Work:
        """Return about what the attack costs on one model."""
        return Work(passes=4 + self.options)

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Return the signals of each kind of question that some row has."""
        signals: dict[str, list[float | None]] = {}
        kinds: Mapping[str, Callable[[Row], list[Row]]] = {
            "alias": lambda row: aliased(row),
            "one hop": lambda row: one_hop(row, facts),
            "own": lambda row: [replace(row, question=question) for question in row.indirect],
        }
        for kind, ask in kinds.items():
            found = _largest(
                subject, [[r for r in ask(row) if not _tells(row, r.question)] for row in facts.rows], kind
            )
            if any(value is not None for value in found):
                signals[kind] = found
        found = self._inverse(subject, facts)
        if any(value is not None for value in found):
            signals["inverse"] = found
        if not signals:
            raise InapplicableError(
                "no question has a relation that is recognised, and no row brings indirect questions"
            )
        return Outcome(facts.rows, signals, {})

    def _inverse(self, subject: Engine, facts: Facts) -> list[float | None]:
        asked = {row: question for row in facts.rows if (question := inverse(row)) is not None}
        values = chosen_name(subject, facts, list(asked.values()), list(asked), self.options)
        found = dict(zip(asked, values, strict=True))
        return [found.get(row) for row in facts.rows]


def aliased(row: Row) -> list[Row]:
    """Return the row's question with initials, and with the last name alone; none if it does not hold the name."""
    name = cluster(row)
    parts = name.split()
    if len(parts) < 2 or name not in row.question:
        return []
    others = (" ".join([*(f"{part[0]}." for part in parts[:-1]), parts[-1]]), parts[-1])
    return [replace(row, question=row.question.replace(name, other)) for other in others]


def one_hop(row: Row, facts: Facts) -> list[Row]:
    """Return the row's question with the instance described by retain facts; none if its name is not in the question."""
    name, found = cluster(row), []
    if name not in row.question:
        return []
    for fact in facts.retained_of(row):
        template = relation(fact).get("described")
        if template and not set(words(name)) & set(words(fact.answer)):
            described = str(template).replace("{answer}", fact.answer.rstrip("."))
            found.append(replace(row, question=row.question.replace(name, described)))
    return found[:1]


def inverse(row: Row) -> str | None:
    """Return the question from the row's answer to its instance; None if no relation is recognised or the answer names it."""
    template = relation(row).get("inverse")
    if not template or set(words(cluster(row))) & set(words(row.answer)):
        return None
    return str(template).replace("{answer}", row.answer.rstrip("."))


def relation(row: Row) -> Mapping[str, object]:
    """Return the templates of a row's relation, by its attribute, else by words of its question; empty if none fits."""
    for given in (set(words(row.attribute.replace("_", " "))), set(words(row.question)) - set(words(cluster(row)))):
        for templates in relations().values():
            if given & set(templates["attribute"]):
                return templates
    return {}


@cache
def relations() -> Mapping[str, Mapping[str, list[str]]]:
    """Return the shipped relations: name → templates."""
    text = (resources.files("scopewise.attacks") / "indirect.yaml").read_text(encoding="utf-8")
    return parse_yaml(text, "indirect.yaml", ConfigError)


def _tells(row: Row, question: str) -> bool:
    """Return whether another question about a row contains what only its answer says."""
    return bool(distinctive(row) & set(words(question)))


def _largest(subject: Engine, asked: list[list[Row]], what: str) -> list[float | None]:
    """Return the largest probability of the answer among each row's questions; None if it has none."""
    flat = [question for questions in asked for question in questions]
    if not flat:
        return [None] * len(asked)
    values = iter(score_answers(subject, flat, what)[0])
    found = []
    for questions in asked:
        known = [value for value in (next(values) for _ in questions) if value is not None]
        found.append(max(known) if known else None)
    return found
