"""Read by a model: is each answer found given the fact, and does a retain answer follow from the forget facts?"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scopewise.building.checks import ENTAILED, FOUND, READ_NAMES
from scopewise.building.index import Index
from scopewise.building.instances import Fact, Instance
from scopewise.building.layouts import read_rows
from scopewise.building.questions import ALIAS, DIRECT, MULTI_HOP, ONE_HOP, PARAPHRASE, SHARED
from scopewise.building.templates import wordings
from scopewise.data.prompt import encode
from scopewise.data.rows import FORGET, RETAIN, SCOPES, TRAIN, Row
from scopewise.documents import parse_json
from scopewise.errors import DataError
from scopewise.files import writing_lines
from scopewise.models.architecture import context_tokens
from scopewise.models.engine import Engine

MOST = 1000
"""Rows that are read; of more, every so many."""
_WRONG = 6
"""Wrong answers that are compared."""
_ODDS = 20.0
"""By how much the forget facts must raise the odds of a retain answer against every wrong one, to count as entailing it."""


@dataclass(frozen=True)
class Read:
    """The likelihoods of the answers of a row, the true one first: sums over tokens in nats, and the tokens of each."""

    total: Sequence[float]
    tokens: Sequence[int]

    @property
    def is_first(self) -> bool:
        """Whether the true answer has the highest mean log-likelihood per token."""
        means = [total / tokens for total, tokens in zip(self.total, self.tokens, strict=True)]
        return all(means[0] > other for other in means[1:])


class Statements:
    """Says facts in sentences, for a model to read.

    Args:
        instances: All of the benchmark.
    """

    def __init__(self, instances: Sequence[Instance]) -> None:
        self._index = Index(instances)
        self._by_name = {instance.name: instance for instance in instances}

    def needed(self, row: Row) -> str:
        """Return what must be known to answer a row: its fact, and by its kind an alias, a description or a link."""
        own = self._by_name[row.instance]
        said = [_said(own, fact) for fact in own.facts if fact.attribute == row.attribute]
        if row.kind == ALIAS:
            said += [f"{alias} is {own.name}." for alias in self._index.aliases(own)[:1]]
        if row.kind == ONE_HOP:
            said += [_said(own, fact) for fact in own.facts if fact.rule.scope == RETAIN]
        if row.kind == MULTI_HOP:
            said = []
            for link, other in self._index.linked(own):
                said.append(_said(own, link))
                said += [_said(other, fact) for fact in other.facts if fact.attribute == row.attribute]
        if row.kind == SHARED:
            for fact in own.facts:
                name = self._index.other_owner(fact, own) if fact.attribute == row.attribute else ""
                said += [_said(self._by_name[name], fact)] if name else []
        return " ".join(dict.fromkeys(said))

    def to_forget(self, row: Row) -> str:
        """Return the forget facts of the row's instance."""
        own = self._by_name[row.instance]
        return " ".join(_said(own, fact) for fact in own.facts if fact.rule.scope == FORGET)


def read_by_model(rows: Path, checks: Path, instances: Sequence[Instance], model: str) -> dict[str, Any]:
    """Ask a model each row with the fact as context, mark the rows in the file of checks, and count them.

    An answer is found if, given the fact, its mean log-likelihood per token is above that of each wrong answer. A direct or
    paraphrased retain row is entailed by forget facts if its answer is first with all forget facts of the instance as context,
    not without, and they raise its odds against each wrong answer by a factor of 20 or more. So what is measured is what the
    model can conclude, and a small model concludes little. Of more than 1,000 rows, every so many are read; a row that does
    not fit the context of the model is not.

    Args:
        rows: The file of rows.
        checks: The file of their checks, whose lines get the two names among `passed` or `failed`.
        instances: Of the benchmark.
        model: Folder or hub name of a causal LM.

    Returns:
        `model`, `rows` that were read, `unread` that did not fit, and of both checks how many rows `passed` and `failed`.

    Raises:
        ModelError: the model cannot be loaded.
    """
    engine, statements = Engine.load(model, name=Path(model).name), Statements(instances)
    count = sum(row.scope in SCOPES for row in read_rows(rows))
    step, at = max(1, -(-count // MOST)), 0
    chosen = dict[int, Row]()
    for number, row in enumerate(read_rows(rows), 1):
        if row.scope in SCOPES:
            if at % step == 0 and row.perturbed:
                chosen[number] = row
            at += 1
    found = _with(engine, {number: (row, statements.needed(row)) for number, row in chosen.items()})
    results = {number: {FOUND: read.is_first} for number, read in found.items()}
    retain = {n: row for n, row in chosen.items() if row.scope == RETAIN and row.kind in (DIRECT, PARAPHRASE)}
    contexts = {n: statements.to_forget(row) for n, row in retain.items()}
    given = _with(engine, {n: (row, contexts[n]) for n, row in retain.items() if contexts[n]})
    alone = _with(engine, {n: (retain[n], "") for n in given})
    for number in given.keys() & alone.keys():
        results.setdefault(number, {})[ENTAILED] = not is_entailed(given[number], alone[number])
    _mark(checks, results)
    counted = {
        name: {
            "passed": sum(one.get(name) is True for one in results.values()),
            "failed": sum(one.get(name) is False for one in results.values()),
        }
        for name in READ_NAMES
    }
    return {"model": model, "rows": len(found), "unread": len(chosen) - len(found), "checks": counted}


def is_entailed(given: Read, alone: Read) -> bool:
    """Return whether a context makes the true answer the first one, and raises its odds enough."""
    gains = [a - b for a, b in zip(given.total, alone.total, strict=True)]
    return given.is_first and not alone.is_first and gains[0] - max(gains[1:]) >= math.log(_ODDS)


def _with(engine: Engine, asked: Mapping[int, tuple[Row, str]]) -> dict[int, Read]:
    """Return the likelihoods of the answers of each row after a context; without the rows that do not fit the model."""
    rows, numbers = list[Row](), list[int]()
    for number, (row, context) in asked.items():
        question = f"{context}\n\n{row.question}" if context else row.question
        answers = (row.answer, *row.perturbed[:_WRONG])
        rows += [replace(row, question=question, answer=answer, origin=f"row {number}") for answer in answers]
        numbers += [number] * len(answers)
    longest = context_tokens(engine.model) or 10**9
    items = encode(rows, engine.tokenizer, engine.prompt, 10**9)
    unfit = {number for number, item in zip(numbers, items, strict=True) if len(item) > longest}
    kept = [(number, item) for number, item in zip(numbers, items, strict=True) if number not in unfit]
    scored = engine.score([item.pair for _, item in kept], "read", moments=False)
    found = dict[int, tuple[list[float], list[int]]]()
    for (number, _), score in zip(kept, scored, strict=True):
        total, tokens = found.setdefault(number, ([], []))
        total.append(math.fsum(score.log_probs))
        tokens.append(len(score.log_probs))
    return {number: Read(*values) for number, values in found.items()}


def _mark(checks: Path, results: Mapping[int, Mapping[str, bool]]) -> None:
    """Add the results to the lines of the file of checks."""
    lines = list(_marked(checks, results))
    with writing_lines(checks) as write:
        for line in lines:
            write(line)


def _marked(checks: Path, results: Mapping[int, Mapping[str, bool]]) -> Iterator[str]:
    with open(checks, encoding="utf-8") as file:
        for number, text in enumerate(file, 1):
            line = parse_json(text, f"{checks}:{number}", DataError)
            for name, passed in results.get(number, {}).items():
                line["passed" if passed else "failed"].append(name)
            yield json.dumps(line, ensure_ascii=False) + "\n"


def _said(instance: Instance, fact: Fact) -> str:
    """Return a train sentence of a fact."""
    text = wordings(instance.kind).of(fact.attribute).by_split[TRAIN].answer[-1]
    sentence = text.format(name=instance.name, value=fact.value)
    return sentence[:1].upper() + sentence[1:]
