"""From the few rows of a request to enough: other wordings to train on and to verify with, and neighbours to keep."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from scopewise.data.candidates import KNOWN_NAMES
from scopewise.data.crossed import crossed_questions, plain
from scopewise.data.instances import instance_names
from scopewise.data.paraphrases import paraphrased
from scopewise.data.rows import FORGET, RETAIN, TRAIN, VAL, Benchmark, Row
from scopewise.erasure.wordings import Facts, inverse_of, to_train, to_verify
from scopewise.errors import DataError
from scopewise.models.engine import Engine
from scopewise.models.self_questions import self_questions

OTHER_ATTRIBUTES = {
    "privacy": {
        "known for": "What is {} known for?",
        "occupation": "What does {} do for a living?",
        "genre": "What kind of books does {} write?",
        "language": "Which languages does {} speak?",
    },
    "copyright": {"author": "Who wrote {}?", "genre": "What genre is {}?", "year": "When was {} published?"},
}
"""Attribute → question, by which what else the model says of an instance is kept."""
_LENGTH = "An answer of this length, about twelve words or so, is enough here."
"""Stands for the answers of `OTHER_ATTRIBUTES`, whose length bounds what is generated."""


@dataclass(frozen=True)
class Expanded:
    """The rows of a request and what was made from them; each row's `origin` says what it was made from.

    Attributes:
        forget: Forget rows to train on.
        verification: Forget questions that are not trained on, for the verdict.
        retain: Retain rows to train on. Empty without given ones, unless an engine made some.
        held_out: Retain questions that are not trained on, for the verdict.
        inverse: Forget rows that give the value and ask for the instance; not trained on.
    """

    forget: tuple[Row, ...]
    verification: tuple[Row, ...]
    retain: tuple[Row, ...]
    held_out: tuple[Row, ...]
    inverse: tuple[Row, ...]

    def benchmark(self, name: str) -> Benchmark:
        """Return all rows but the inverse ones as a benchmark, whose `train` rows are `forget` and `retain`."""
        return Benchmark(name, (*self.forget, *self.retain, *self.verification, *self.held_out), taught=(TRAIN,))


def expand(
    rows: Sequence[Row],
    engine: Engine | None = None,
    *,
    wordings: int = 2,
    neighbours: int = 48,
    max_nll: float = 1.0,
    seed: int = 0,
) -> Expanded:
    """Return the rows with other wordings of their questions and, if no row is to be kept, with neighbours.

    Rows of split `val` are only verified with. Wordings to train on are the rows' own `paraphrased_questions`, then
    templates; those to verify with are other templates, and no question is in both. The engine, if it is needed, makes
    neighbours: the same attributes of well-known instances, and other attributes of the same ones. They keep what the model
    itself says, unless it repeats an answer that is to be forgotten.

    Args:
        rows: Of a request, of both scopes or of `forget` alone; rows of other scopes are left out.
        engine: Of the model before unlearning; used only if there is no retain row. None makes no neighbours.
        wordings: Largest number of other wordings of each train row, for each of the two uses.
        neighbours: Largest number of questions that the model is asked.
        max_nll: Largest mean negative log-likelihood of a neighbour's answer, in nats per token.
        seed: Of the draw of neighbours.

    Raises:
        DataError: no forget row of split `train`.
    """
    forget, retain = ([row for row in rows if row.scope == scope and row.split == TRAIN] for scope in (FORGET, RETAIN))
    if not forget:
        raise DataError(f"rows: none of scope {FORGET!r} and split {TRAIN!r}; give at least one to unlearn")
    given = [row for row in rows if row.scope in (FORGET, RETAIN)]
    counts = Counter(
        (row.instance, row.attribute) for row in given if row.split == TRAIN and row.instance and row.attribute
    )
    facts = {fact for fact, count in counts.items() if count == 1}
    asked = [question for row in given for question in (row.question, *row.indirect)]

    def others(own: list[Row], made: Callable[[Row, Facts], list[str]], known: Iterable[str], split: str) -> list[Row]:
        varied = [
            replace(row, split=split, paraphrased_questions=(*_given(row, split), *made(row, facts)))
            for row in own
            if row.question
        ]
        return paraphrased(varied, [*asked, *known], wordings) if varied and wordings else []

    verification, held_out = (others(own, to_verify, (), VAL) for own in (forget, retain))
    verified = [row.question for row in (*verification, *held_out)]
    more_forget = others(forget, to_train, verified, TRAIN)
    more_retain = others(retain, to_train, [*verified, *(row.question for row in more_forget)], TRAIN)
    if not retain and engine is not None and neighbours:
        known = [*asked, *verified, *(row.question for row in more_forget)]
        made = _neighbours(forget, known, engine, neighbours, max_nll, seed)
        held_out, retain = (
            [replace(row, split=VAL) for row in made[3::4]],
            [row for i, row in enumerate(made) if i % 4 != 3],
        )
    return Expanded(
        forget=(*forget, *more_forget),
        verification=(*(row for row in given if row.scope == FORGET and row.split == VAL), *verification),
        retain=(*retain, *more_retain),
        held_out=(*(row for row in given if row.scope == RETAIN and row.split == VAL), *held_out),
        inverse=tuple(_inverse(forget)),
    )


def _given(row: Row, split: str) -> tuple[str, ...]:
    return row.paraphrased_questions if split == TRAIN else ()


def _inverse(forget: Sequence[Row]) -> list[Row]:
    """Return the inverse of each row whose value belongs to one instance alone."""
    questions = [(row, question) for row in forget if (question := inverse_of(row))]
    owners = {(plain(question), row.instance) for row, question in questions}
    count = Counter(question for question, _ in owners)
    found = {
        plain(question): Row(
            question,
            row.instance,
            FORGET,
            VAL,
            row.instance,
            row.attribute,
            row.domain,
            origin=f"{row.origin}, inverse",
        )
        for row, question in questions
        if count[plain(question)] == 1
    }
    return list(found.values())


def _neighbours(
    forget: Sequence[Row], known: Collection[str], engine: Engine, most: int, max_nll: float, seed: int
) -> list[Row]:
    """Return retain rows that the model answers itself, none of which repeats a forget answer."""
    domain = forget[0].domain if forget[0].domain in KNOWN_NAMES else "privacy"
    instances = instance_names(forget)
    elsewhere = [name for name in KNOWN_NAMES[domain] if name not in instances]
    asked_of = {name: {row.attribute.casefold() for row in forget if row.instance == name} for name in instances}
    sources = []
    for attribute, question in OTHER_ATTRIBUTES[domain].items():
        # Without the attribute of each of its rows, any question about an instance may ask for a fact to be forgotten.
        free = [name for name, asked in asked_of.items() if asked and not asked & {"", attribute}]
        origin = f"a question about {attribute}"
        sources.append(([Row(question.format("X"), _LENGTH, RETAIN, instance="X", domain=domain, origin=origin)], free))
    sources.append(([replace(row, scope=RETAIN) for row in forget], elsewhere))
    found: list[Row] = []
    for left, (rows, names) in zip(range(len(sources), 0, -1), sources, strict=True):
        share = -(-most // left)  # what one source does not ask, the next ones may
        if asked := len(crossed_questions(rows, names, known, share, seed)):
            items = self_questions(rows, names, known, engine, most=share, max_nll=max_nll, seed=seed)
            found += [item.row for item in items]
        most -= asked
    return [replace(row, split=TRAIN) for row in found if not repeats(row.answer, forget)]


def repeats(text: str, forget: Iterable[Row]) -> bool:
    """Return whether a text has something particular to a forget answer and not to its question.

    That is a number, a name (of four letters or more, and not the first word), four words in a row, or all of it.
    """
    said = {word.lower() for word in _words(text)} | _runs(text)
    return any(said & (_names(row.answer) | _runs(row.answer)) - _names(row.question) for row in forget)


def _names(text: str) -> set[str]:
    words = [(i, word) for i, word in enumerate(_words(text)) if len(word) > 3 or re.search(r"\d", word)]
    return {word.lower() for i, word in words if re.search(r"[\d@]", word) or (i and word[0].isupper())}


def _runs(text: str) -> set[str]:
    words = [word.lower() for word in _words(text)]
    return {" ".join(words[i : i + 4]) for i in range(len(words) - 3)} | {" ".join(words)} - {""}


def _words(text: str) -> list[str]:
    return re.findall(r"[\w@-]+", text)
