"""Indirect questions: from the fact to the name, by way of another fact, and under another name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    score_answers,
    words,
)
from scopewise.attacks.multiple_choice import chosen_name
from scopewise.data.rows import Row
from scopewise.documents import parse_yaml
from scopewise.errors import ConfigError
from scopewise.models.engine import Engine


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
