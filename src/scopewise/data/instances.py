"""Which person or book a row is about."""

from __future__ import annotations

import re


def instance_of(instance: str, question: str) -> str:
    """Return the instance of a row: that of the data, else the longest name in its question, else the question itself."""
    if instance:
        return instance
    names = re.findall(r"[A-Z][\w’-]+(?:\s+(?:of|the|de|van|and)?\s*[A-Z][\w’-]+)+", question)
    return max(names, key=len).removesuffix("'s") if names else question
