"""The facts that a request is about, and the questions under which they are measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from scopewise.data.facts import Fact, facts_of, together
from scopewise.data.instances import instance_names
from scopewise.data.rows import FORGET, RETAIN, Row
from scopewise.erasure.expand import expand
from scopewise.erasure.verdict import is_known
from scopewise.exposure import compared_with, expose
from scopewise.models.engine import Engine

_FEW = 3


def measured_facts(rows: Sequence[Row], seed: int = 0, base: str | Path | None = None) -> list[Fact]:
    """Return the facts of a request's rows, under their own questions and one wording each that is not trained on.

    Args:
        rows: Of the request.
        seed: Of what is drawn.
        base: Folder or hub name of the model before fine-tuning. If the rows name few instances, it is compared with, as in the
            first measurement, unless it knows the facts by itself.
    """
    facts = together(facts_under_wordings(rows, seed))
    if base is None or not names_few(rows):
        return facts
    engine = Engine.load(base, name="base")
    return facts if is_known(expose(engine, facts)) else compared_with(engine, facts)


def names_few(rows: Sequence[Row]) -> bool:
    """Return whether rows name so few instances that the base takes the place of other names."""
    return len(instance_names(rows)) <= _FEW


def facts_under_wordings(rows: Sequence[Row], seed: int) -> list[Fact]:
    """Return one fact for each forget row, under its own question and one wording that is not trained on."""
    return facts_under(rows, expand(rows, seed=seed).verification, seed)


def facts_under(rows: Sequence[Row], wordings: Sequence[Row], seed: int) -> list[Fact]:
    """Return one fact for each forget row, under its own question and the first of `wordings` that asks for the same."""
    forget, retain = ([row for row in rows if row.scope == scope] for scope in (FORGET, RETAIN))
    of_fact: dict[tuple[str, str], list[str]] = {}
    for row in wordings:
        of_fact.setdefault((row.answer, row.instance), []).append(row.question)
    found = []
    for row in forget:
        others = [asked for asked in of_fact.get((row.answer, row.instance), ()) if asked != row.question]
        found.append(replace(row, paraphrased_questions=tuple(others[:1])))
    return facts_of(found, retain, seed)
