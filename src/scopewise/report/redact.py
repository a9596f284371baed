"""Answers of the forget scope replaced by salted hashes: a report of a deletion must not spread what was deleted."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from scopewise.report.secrets import LENGTH, Secrets

FORGET = "forget"
_TRIES = 1000


class Redaction:
    """Hides what the forget answers say and the rest of the data does not.

    A text about a forget row is replaced as a whole. Of every other text is replaced what `Secrets` finds in it: what some
    forget answer says, and no question and no other answer. A hash is 12 hexadecimal digits of HMAC-SHA256 of the text
    without case and spacing: equal texts have equal hashes in one report, and without the salt nobody can try out guesses.

    Args:
        rows: All rows that are known, with `question`, `answer`, `scope` and what a row may have besides.
        salt: The same gives the same hashes in several reports; None: a random one that is kept nowhere.
        suspects: Further texts that may be known to those alone who may read the forget answers.
    """

    def __init__(
        self, rows: Iterable[Mapping[str, Any]], salt: str | None = None, suspects: Iterable[str] = ()
    ) -> None:
        self._salt = secrets.token_bytes(32) if salt is None else salt.encode()
        secret, public = list(suspects), []
        for row in rows:
            public.append(row["question"])
            if row["scope"] == FORGET:
                secret += [row["answer"], row.get("paraphrase") or "", *row.get("others", ())]
            else:
                public.append(row["answer"])
        self._secrets = Secrets(secret, public)
        self._scrubbed: dict[str, str] = {}

    def hide(self, text: str) -> str:
        """Return the hash that stands for a text; it holds no run that only forget answers have."""
        if not text:
            return text
        folded = unicodedata.normalize("NFKC", " ".join(text.split())).casefold()
        for i in range(_TRIES):
            digits = self._hash(folded if i == 0 else f"{folded}\0{i}")
            # The label says nothing; what has to be free of such runs is all that touches the digits.
            if not self._secrets.has("redacted"[1 - LENGTH :] + f" {digits}]"):
                return f"[redacted {digits}]"
        return "[redacted]"

    def scrub(self, text: str) -> str:
        """Return a text with what only forget answers say replaced, by whole words."""
        found = self._scrubbed.get(text)
        if found is None:
            parts, end = [], 0
            for start, stop in self._secrets.spans(text):
                parts += [text[end:start], self.hide(text[start:stop])]
                end = stop
            found = self._scrubbed[text] = "".join([*parts, text[end:]])
        return found

    def seal(self, text: str) -> str:
        """Return a hash of a text that is no answer, such as a hash that was made without a salt."""
        return self._hash(text)

    def _hash(self, text: str) -> str:
        return hmac.new(self._salt, text.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()[:12]


class Open:
    """Hides nothing: what a report without redaction uses in its place."""

    def hide(self, text: str) -> str:
        """Return the text."""
        return text

    def scrub(self, text: str) -> str:
        """Return the text."""
        return text
