"""Facts to be measured by exposure: forget rows, each with wrong answers of the same kind and other names."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scopewise.data.builtin import read_general
from scopewise.data.candidates import other_names, own_words, renamed, same_kind, wrong_answers
from scopewise.data.crossed import plain
from scopewise.data.instances import instance_names, instance_of
from scopewise.data.rows import Row
from scopewise.errors import DataError

LEAST_ANSWERS = 20
"""Wrong answers that a fact needs; with them, chance alone puts the true answer first in less than one case of twenty."""


@dataclass(frozen=True)
class Fact:
    """A question with its true answer, wrong answers of the same kind, and names for the comparison.

    Attributes:
        row: The question and the true answer.
        others: Further rows that say the same in other words (`together`).
        instance: The person or book.
        name: The instance's name as it is in the question; empty if it is not.
        questions: The question, then its paraphrases, and those of `others`.
        wrong: Wrong answers, different from each other.
        names: Other names, under which true and wrong answers are scored for comparison.
        reference: Log-likelihood of the true and of each wrong answer by another model, for each question; it takes the place
            of other names (`exposure.compared_with`).
        reference_says: Whether that model's greedy decoding says each answer word for word.
    """

    row: Row
    instance: str
    name: str
    questions: tuple[str, ...]
    wrong: tuple[str, ...]
    names: tuple[str, ...]
    reference: tuple[tuple[float, ...], ...] = ()
    reference_says: tuple[tuple[bool, ...], ...] = ()
    others: tuple[Row, ...] = ()

    @property
    def rows(self) -> tuple[Row, ...]:
        """All rows that state the fact."""
        return (self.row, *self.others)


def facts_of(
    rows: Sequence[Row], others: Sequence[Row], seed: int = 0, *, answers: int = 24, names: int = 3
) -> list[Fact]:
    """Return the facts of forget rows, each with wrong answers and names to compare with.

    A wrong answer is the true one with other words in the place of those that carry the fact (`wrong_answers`), from the
    answers of other instances to the same attribute, then to any. Words that many instances share carry no fact, and stay. So
    do words of the question, of the name, and of what `others` say about the same instance: nothing that may be known gives
    the true answer away. Answers as `perturbed` in the data are used first. Names to compare with are those of other
    instances, since what a model says of a name that it has seen differs from what it says of one that it has not; where
    there are too few, also names made of their parts.

    Args:
        rows: Forget rows.
        others: Rows that may be known, such as retain rows.
        seed: Of the draws.
        answers: Wrong answers of each fact.
        names: Names to compare with.

    Raises:
        DataError: no row, or a row whose answer has no word of its own; the message names it.
    """
    if not rows:
        raise DataError("exposure: no forget row; give at least one question with its answer")
    every = [*rows, *others]
    known = instance_names(every)
    instances = [_instance(row, known) for row in every]
    text, common = [row.answer for row in read_general()], _common_words(every, instances)
    found = []
    for row, instance in zip(rows, instances, strict=False):
        rng = random.Random(f"{seed} {row.question} {row.answer}")
        name = instance if renamed(row.question, instance, "\0") != row.question and instance != row.question else ""
        allowed = [
            f"{other.question} {other.answer}" for other, own in zip(others, instances[len(rows):], strict=True)
            if own == instance
        ]  # fmt: skip
        elsewhere = [other for other, own in zip(rows, instances, strict=False) if own != instance]
        pools = [
            [other.answer for other in elsewhere if other.attribute == row.attribute and row.attribute],
            [other.answer for other in elsewhere],
            [other.answer for other, own in zip(every, instances, strict=True) if own != instance],
            text,
        ]
        wrong = list(dict.fromkeys(answer for answer in row.perturbed if plain(answer) != plain(row.answer)))[:answers]
        kept = " ".join([name, *allowed])
        count = answers if len(wrong) < answers else 0  # some of them may be among those given
        made = wrong_answers(row, f"{kept} {common}", pools, count, rng)
        made = made if len(made) >= count else wrong_answers(row, kept, pools, count, rng)
        wrong = list(dict.fromkeys([*wrong, *made]))[:answers]
        if len(wrong) < LEAST_ANSWERS:
            raise DataError(
                f"{row.origin or row.question}: {len(wrong)} wrong answers of the same kind; exposure needs {LEAST_ANSWERS}; "
                "give the answer a word that is neither in the question nor in a retain row, or leave this row out"
            )
        others_names = _names(name, [n for n in known if n != instance], names, rng) if name else []
        questions = tuple(dict.fromkeys((row.question, *row.paraphrased_questions)))
        found.append(Fact(row, instance, name, questions, tuple(wrong), tuple(others_names)))
    return found


def together(facts: Sequence[Fact]) -> list[Fact]:
    """Return facts of which no two say the same: rows about one instance that do are one fact with several questions.

    They do if the answers are equal, or if the attribute is the same and the answers share half of the words that carry a fact.
    A test of exposure counts each fact once; several wordings of one would be counted as independent evidence.

    Args:
        facts: From `facts_of`. Of those that say the same, the first gives the answer.
    """
    found: dict[int, Fact] = {}
    words = [own_words(fact.row, fact.name) for fact in facts]
    for i, fact in enumerate(facts):
        first = next(
            (k for k, one in found.items() if one.instance == fact.instance and _same(i, k, facts, words)), None
        )
        if first is None:
            found[i] = fact
        else:
            one = found[first]
            questions = tuple(dict.fromkeys((*one.questions, *fact.questions)))
            found[first] = replace(one, questions=questions, others=(*one.others, fact.row))
    return list(found.values())


def _same(i: int, k: int, facts: Sequence[Fact], words: Sequence[Sequence[str]]) -> bool:
    one, other = facts[i].row, facts[k].row
    if plain(one.answer) == plain(other.answer):
        return True
    first, second = ({word.lower() for word in words[n]} for n in (i, k))
    fewer = min(len(first), len(second))
    return one.attribute == other.attribute != "" and 2 * len(first & second) >= fewer > 0


def _common_words(rows: Sequence[Row], instances: Sequence[str]) -> str:
    """Return the words that answers about a third of the instances have, and about three: they carry no fact."""
    has: dict[str, set[str]] = {}
    for row, instance in zip(rows, instances, strict=True):
        for word in re.findall(r"\w+", row.answer.lower()):
            has.setdefault(word, set()).add(instance)
    least = max(3.0, len(set(instances)) / 3)
    return " ".join(word for word, who in has.items() if len(who) >= least)


def _names(name: str, others: Sequence[str], count: int, rng: random.Random) -> list[str]:
    """Return names to compare with: of other instances of the same kind, then made ones."""
    peers = same_kind(name, others)
    real = rng.sample(peers, min(count, len(peers)))
    made = other_names(name, others, count, rng) if len(real) < count else []
    return list(dict.fromkeys([*real, *made]))[:count]


def _instance(row: Row, known: Sequence[str]) -> str:
    own = instance_of(row.instance, row.question)
    if row.instance:
        return own
    return max((name for name in known if own == name or own.endswith(f" {name}")), key=len, default=own)
