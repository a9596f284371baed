"""Answers of the forget scope replaced by salted hashes: a report of a deletion must not spread what was deleted."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_WORD = re.compile(r"[\w@]+(?:[.+@'’-]+\w+)*")
FORGET = "forget"


class Redaction:
    """Hides what the forget answers say and the rest of the data does not.

    A text about a forget row is replaced as a whole. In every other text each *secret word* is: one that some forget answer
    has and no question and no other answer has. A hash is 12 hexadecimal digits of HMAC-SHA256 of the text without case and
    spacing: equal texts have equal hashes in one report, and without the salt nobody can try out guesses.

    Args:
        rows: All rows of the report, with `question`, `answer` and `scope`.
        salt: The same gives the same hashes in several reports; None: a random one that is kept nowhere.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]], salt: str | None = None) -> None:
        self._salt = secrets.token_bytes(32) if salt is None else salt.encode()
        secret: set[str] = set()
        public: set[str] = set()
        for row in rows:
            public |= _words(row["question"]) | _words(str(row.get("instance", "")))
            (secret if row["scope"] == FORGET else public).update(_words(row["answer"]))
        self._secret = secret - public

    def hide(self, text: str) -> str:
        """Return the hash that stands for a text."""
        return f"[redacted {self._hash(text)}]" if text else text

    def scrub(self, text: str) -> str:
        """Return a text with its secret words replaced."""
        return _WORD.sub(lambda m: self.hide(m[0]) if m[0].lower() in self._secret else m[0], text)

    def _hash(self, text: str) -> str:
        return hmac.new(self._salt, " ".join(text.lower().split()).encode(), hashlib.sha256).hexdigest()[:12]


class Open:
    """Hides nothing: what a report without redaction uses in its place."""

    def hide(self, text: str) -> str:
        """Return the text."""
        return text

    def scrub(self, text: str) -> str:
        """Return the text."""
        return text


def redaction_of(answers: Iterable[Sequence[Mapping[str, Any]]], salt: str | None) -> Redaction:
    """Return the redaction of all rows that any model answered."""
    return Redaction((row for rows in answers for row in rows), salt)


def _words(text: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(text)}
