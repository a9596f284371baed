"""What the questions about one instance need to know of all: values of others, names that are unique, and links."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from scopewise.building.instances import PERSON, Fact, Instance
from scopewise.building.templates import wordings
from scopewise.data.crossed import plain
from scopewise.data.rows import RETAIN


class Index:
    """Lookups over all instances, made in one pass.

    Args:
        instances: All of the benchmark.
    """

    def __init__(self, instances: Sequence[Instance]) -> None:
        self.names: dict[str, list[str]] = {}
        self.known_names: set[str] = {instance.name for instance in instances}
        self._pools: dict[tuple[str, str], list[str]] = {}
        self._values: Counter[tuple[str, str]] = Counter()
        self._names: Counter[str] = Counter()
        self._by_name: dict[str, Instance] = {}
        for instance in instances:
            self.names.setdefault(instance.kind, []).append(instance.name)
            self._by_name[plain(instance.name)] = instance
            self._names.update({plain(name) for name in (instance.name, *instance.aliases, *_short(instance))})
            for fact in instance.facts:
                self._pools.setdefault((instance.kind, fact.attribute), []).append(fact.value)
                self._values[fact.attribute, plain(fact.value)] += 1
        self._pairs: dict[tuple[str, str], list[str]] = {}
        for instance in instances:
            for fact in instance.facts:
                if self._values[key := (fact.attribute, plain(fact.value))] == 2:
                    self._pairs.setdefault(key, []).append(instance.name)

    def pool(self, kind: str, attribute: str) -> list[str]:
        """Return the values of all instances of a kind for an attribute."""
        return self._pools.get((kind, attribute), [])

    def is_unique(self, fact: Fact) -> bool:
        """Return whether no other instance has the same value for the attribute."""
        return self._values[fact.attribute, plain(fact.value)] == 1

    def other_owner(self, fact: Fact, instance: Instance) -> str:
        """Return the name of the one other instance with the same value for the attribute; empty if there are none or more."""
        names = self._pairs.get((fact.attribute, plain(fact.value)), [])
        return next((name for name in names if name != instance.name), "")

    def aliases(self, instance: Instance) -> list[str]:
        """Return other names that no other instance has: the given ones, else initials with the last name of a person."""
        own = instance.aliases or _short(instance)
        return [name for name in own if self._names[plain(name)] == 1 and plain(name) != plain(instance.name)]

    def descriptions(self, instance: Instance) -> list[tuple[str, str]]:
        """Return (attribute, "the person who has won …") for retain facts that no other instance shares."""
        how = wordings(instance.kind)
        return [
            (fact.attribute, how.described.format(predicate=_predicate(instance, fact)))
            for fact in instance.facts
            if fact.rule.scope == RETAIN
            and self.is_unique(fact)
            and len(fact.value.split()) <= 12
            and fact.attribute != "name"
        ]

    def linked(self, instance: Instance) -> list[tuple[Fact, Instance]]:
        """Return the facts whose value is the name of another instance, with that instance."""
        found = [(fact, self._by_name.get(plain(fact.value))) for fact in instance.facts]
        return [(fact, other) for fact, other in found if other is not None and other.name != instance.name]


def _predicate(instance: Instance, fact: Fact) -> str:
    wording = wordings(instance.kind).of(fact.attribute).by_split["val"]
    return wording.predicate.format(value=fact.value)


def _short(instance: Instance) -> list[str]:
    """Return "A. B. Lovelace" of "Ada Byron Lovelace"."""
    parts = instance.name.split()
    if instance.kind != PERSON or len(parts) < 2:
        return []
    return [" ".join([*(f"{part[0]}." for part in parts[:-1]), parts[-1]])]
