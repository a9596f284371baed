"""Checks of rows: each question once, no split or scope that gives another away, enough wrong answers."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from scopewise.building.balance import FirstWords
from scopewise.building.instances import Instance
from scopewise.building.private import ForgetValues
from scopewise.data.crossed import plain
from scopewise.data.rows import CHOICE, FORGET, RETAIN, SCOPES, SPLITS, Row

LEAST_WRONG = 5
SIMILAR, SIMILAR_ELSEWHERE = 0.8, 0.9
"""Jaccard index of the words of two questions, without the instance's name, from which they are near-duplicates: of one
attribute, and of two. The second is higher, since the same frame asked for two attributes differs in a word or two only."""
MOST_VOTE = {1: 0.15, 2: 0.25}
"""First words looked at → by how much a majority vote on them may exceed the share of the more frequent scope."""

UNIQUE, NEAR, DERIVED, SHARED, WRONG, GIVEN = (
    "question-in-one-place", "no-near-duplicate", "not-derivable", "no-shared-name", "wrong-answers", "answer-not-given",
)  # fmt: skip
NAMES = {
    UNIQUE: "The question is in no other scope or split, and only once.",
    NEAR: "No question of the same instance in another scope or split is nearly the same.",
    DERIVED: "A retain row repeats no forget value of any instance (four words of it, all of a shorter one, or one person).",
    SHARED: "A retain row has no name in common with a forget value.",
    WRONG: f"It has at least {LEAST_WRONG} wrong answers.",
    GIVEN: "The question does not give the answer (multiple choice does, by its kind).",
}
FOUND, ENTAILED = "answer-found", "not-entailed"
READ_NAMES = {
    FOUND: "Given the fact, the model ranks the answer before the wrong ones.",
    ENTAILED: "Given the forget facts of the instance, the answer of a retain row does not become the likeliest one.",
}
"""Checks by a model, with `--check-model`; see `read_by_model`."""
DROPPED = (UNIQUE, NEAR, DERIVED, GIVEN)
"""Checks that a row must pass to be in the benchmark; a row that fails another one is kept and marked."""


@dataclass
class Checks:
    """Checks the rows of instances, one instance after the other.

    It keeps 8 bytes of each question, and counts.

    Attributes:
        private: The values of all instances that must go.
        passed: Check → rows.
        failed: Check → rows.
        votes: The majority vote on first words, by how many of them.
    """

    private: ForgetValues
    passed: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    votes: tuple[FirstWords, ...] = field(default_factory=lambda: tuple(map(FirstWords, MOST_VOTE)))
    _asked: set[bytes] = field(default_factory=set)

    def check(self, rows: Sequence[Row], instance: Instance | None) -> Iterator[tuple[Row, tuple[str, ...]]]:
        """Yield each row of an instance with the checks that it fails.

        Args:
            rows: Of the instance.
            instance: None for rows about none of the benchmark's instances.
        """
        names = _names(instance) if instance else set()
        kept: dict[tuple[str, str], list[tuple[str, set[str]]]] = {}
        own = set(plain(instance.name).split()) if instance else set()
        for row in rows:
            words = set(plain(row.question).split()) - own
            digest = hashlib.blake2b(plain(row.question).encode(), digest_size=8).digest()
            fails = {
                UNIQUE: digest in self._asked,
                NEAR: any(
                    _is_near(words, theirs, SIMILAR if attribute == row.attribute else SIMILAR_ELSEWHERE)
                    for place, others in kept.items()
                    if place != (row.scope, row.split)
                    for attribute, theirs in others
                ),
                DERIVED: row.scope == RETAIN and any(True for _ in self.private.owners(row)),
                SHARED: row.scope == RETAIN and not names.isdisjoint(re.findall(r"\w+", row.answer)),
                WRONG: len(row.perturbed) < LEAST_WRONG,
                GIVEN: row.kind != CHOICE and f" {plain(row.answer)} " in f" {plain(row.question)} ",
            }
            failed = tuple(check for check, fault in fails.items() if fault)
            for check in fails:
                (self.failed if check in failed else self.passed)[check] += 1
            if not any(check in DROPPED for check in failed):
                self._asked.add(digest)
                kept.setdefault((row.scope, row.split), []).append((row.attribute, words))
            yield row, failed

    def count(self, row: Row) -> None:
        """Count the first words of a row that is in the benchmark."""
        if row.scope in SCOPES:
            for vote in self.votes:
                vote.add(row)

    def first_words(self) -> dict[str, dict[str, float | bool]]:
        """Return for each split and number of first words the accuracy of the vote, the base rate, and whether it passes."""
        found = {}
        for vote in self.votes:
            for split in SPLITS:
                accuracy, base = vote.accuracy(split)
                passed = accuracy - base <= MOST_VOTE[vote.words]
                found[f"{split}, {vote.words}"] = {
                    "accuracy": round(accuracy, 4),
                    "base_rate": round(base, 4),
                    "passed": passed,
                }
        return found


def _names(instance: Instance) -> set[str]:
    """Return the names in values to be forgotten: words with a capital and four letters or more, but the instance's own."""
    values = " ".join(fact.value for fact in instance.facts if fact.rule.scope == FORGET)
    return {word for word in re.findall(r"\w{4,}", values) if word[0].isupper()} - set(
        re.findall(r"\w+", instance.name)
    )


def _is_near(one: set[str], other: set[str], limit: float) -> bool:
    """Return whether the Jaccard index of two sets is at least a limit; most pairs differ too much in size alone."""
    smaller, larger = sorted((len(one), len(other)))
    if smaller < limit * larger:
        return False
    common = len(one & other)
    return common >= limit * (smaller + larger - common)
