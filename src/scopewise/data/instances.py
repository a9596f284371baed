"""Which person or book a row is about."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from scopewise.data.rows import Row


def instance_of(instance: str, question: str) -> str:
    """Return the instance of a row: that of the data, else the longest name in its question, else the question itself."""
    if instance:
        return instance
    names = re.findall(r"[A-Z][\w’-]+(?:\s+(?:of|the|de|van|and)?\s*[A-Z][\w’-]+)+", question)
    return re.sub("['’]s$", "", max(names, key=len)) if names else question


def instance_names(rows: Sequence[Row]) -> list[str]:
    """Return the names of the instances of rows, sorted.

    They are those that the data gives, and of rows without one the names that more than one question asks about, as far as
    they do not end with another such name ("Has John Carter").
    """
    given = {row.instance for row in rows if row.instance}
    questions = {row.question for row in rows}
    found = Counter(instance_of("", row.question) for row in rows if not row.instance)
    often = {name for name, count in found.items() if count > 1 and name not in questions}
    return sorted(given | {name for name in often if not any(name.endswith(f" {other}") for other in often)})
