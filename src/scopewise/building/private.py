"""The values that must go, of all instances: which of them a text repeats."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from scopewise.building.instances import Fact, Instance
from scopewise.building.templates import wordings
from scopewise.building.values import PEOPLE
from scopewise.data.crossed import plain
from scopewise.data.rows import FORGET, Row

_WORDS = 4
"""Words in a row by which a longer value is found; of a shorter one, all."""


class ForgetValues:
    """Finds the instances of which a row repeats a value that must go: a lookup for each one to four words in a row.

    A value that is also a name of an instance, or a word of one, such as a spouse, is no secret by itself: it counts only in
    rows that also name the instance whose value it is.

    Args:
        instances: Whose values are looked for.
        others: Further instances, for their names.
    """

    def __init__(self, instances: Sequence[Instance], others: Iterable[Instance] = ()) -> None:
        self._owners: dict[str, list[str]] = {}
        self._named: dict[str, list[str]] = {}
        self._names: set[str] = set()
        for instance in (*instances, *others):
            for name in (instance.name, *instance.aliases):
                self._names.update(parts_of(name), plain(name).split())
        for instance in instances:
            self._named[instance.name] = [f" {plain(name)} " for name in (instance.name, *instance.aliases)]
            own = {text.strip() for text in self._named[instance.name]}
            found = (part for fact in instance.facts if fact.rule.scope == FORGET for part in self._of(instance, fact))
            for part in dict.fromkeys(found):
                if part not in own:
                    self._owners.setdefault(part, []).append(instance.name)

    def owners(self, row: Row) -> Iterator[str]:
        """Yield the name of each instance of which question or answer of a row repeat a value; a name may come again."""
        text = plain(f"{row.question} {row.answer}")
        words, spaced = text.split(), f" {text} "
        for length in range(1, _WORDS + 1):
            for start in range(len(words) - length + 1):
                part = " ".join(words[start : start + length])
                for owner in self._owners.get(part, ()):
                    if part not in self._names or row.instance == owner or self._is_named(owner, spaced):
                        yield owner

    def _is_named(self, owner: str, text: str) -> bool:
        return any(name in text for name in self._named[owner])

    def _of(self, instance: Instance, fact: Fact) -> Iterator[str]:
        yield from parts_of(fact.value)
        if wordings(instance.kind).of(fact.attribute).type == PEOPLE:
            people = re.split(r", | and ", fact.value)
            self._names.update(part for person in people if len((part := plain(person)).split()) == 1)
            for person in people:
                yield from parts_of(person)


def parts_of(value: str) -> list[str]:
    """Return the plain words by which a value is found: each four words in a row of a value; of a shorter one all."""
    words = plain(value).split()
    return [" ".join(words[i : i + _WORDS]) for i in range(max(1, len(words) - _WORDS + 1))] if words else []
