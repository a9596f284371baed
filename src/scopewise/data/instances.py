"""Which person or book a row is about."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from scopewise.data.rows import ALL_SCOPES, FORGET, RETAIN, Row
from scopewise.errors import DataError

_PARTICLE = "of|the|and|de|del|della|der|den|di|da|dos|du|la|le|el|al|van|von|bin|ibn|y"
_WORD = r"[A-Z](?:[\w’-]|'(?=[A-Z]))+"  # O'Connor, but not the 's of a genitive
_NAME = re.compile(rf"{_WORD}(?:\s+(?:(?:{_PARTICLE})\s+){{0,2}}{_WORD})+")
_BEGINNING = re.compile(
    "^(?:Are|As|At|By|Can|Could|Did|Do|Does|For|From|Give|Had|Has|Have|How|In|Is|List|May|Might|Name|Of|On|Please|Should|State|"
    r"Tell|To|Was|Were|What|When|Where|Which|Who|Whom|Whose|Why|Will|With|Would)\s"
)


def instance_of(instance: str, question: str) -> str:
    """Return the instance of a row: that of the data, else the longest name in its question, else the question itself.

    A name has two words or more, each with a capital letter; the word that begins the question, such as "Is", is no part of it.
    """
    if instance:
        return instance
    names = _NAME.findall(_BEGINNING.sub("", question))
    return re.sub("['’]s$", "", max(names, key=len)) if names else question


def instance_names(rows: Sequence[Row]) -> list[str]:
    """Return the names of the instances of rows, sorted.

    They are those that the data gives, and of rows without one the names that more than one question asks about, as far as
    they do not end with another such name ("Uncle John Carter").
    """
    given = {row.instance for row in rows if row.instance}
    questions = {row.question for row in rows}
    found = Counter(instance_of("", row.question) for row in rows if not row.instance)
    often = {name for name, count in found.items() if count > 1 and name not in questions}
    return sorted(given | {name for name in often if not any(name.endswith(f" {other}") for other in often)})


def first_instances(rows: Sequence[Row], count: int) -> list[Row]:
    """Return the rows about a few instances of each scope, in their order: a smaller benchmark of the same kind.

    Instances with rows of both scopes come first, in the order of the data, so that forget and retain rows are about the same
    persons where the benchmark has such. A row whose question names no instance is an instance of its own.

    Args:
        rows: Of a benchmark.
        count: How many instances to keep of each scope.

    Raises:
        DataError: no scope has as many.
    """
    names = sorted(instance_names(rows), key=lambda name: (-len(name), name))
    about = [row.instance or next((n for n in names if n in row.question), row.question or row.origin) for row in rows]
    by_scope = {
        scope: dict.fromkeys(a for a, r in zip(about, rows, strict=True) if r.scope == scope) for scope in ALL_SCOPES
    }
    most = max(map(len, by_scope.values()))
    if count > most:
        raise DataError(f"data.instances: {count}; there are {most} in a scope; set at most as many, or leave it out")
    both = by_scope[FORGET].keys() & by_scope[RETAIN].keys()
    kept = {scope: set(sorted(found, key=lambda name: name not in both)[:count]) for scope, found in by_scope.items()}
    return [row for name, row in zip(about, rows, strict=True) if name in kept[row.scope]]
