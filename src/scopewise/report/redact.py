"""Replace answers of the forget scope by salted hashes: a report on a deletion must not reveal what was deleted."""

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
    """Hides text that only the forget answers have.

    Answers and outputs of forget rows are replaced as a whole. In every other text, `Secrets` finds the parts that
    occur in a forget answer, but in no question and no other answer. A hash is 12 hexadecimal digits of HMAC-SHA256 of
    the text, ignoring case and spacing: equal texts have equal hashes in one report, and guesses cannot be tried
    without the salt.

    Args:
        rows: All known rows, with `question`, `answer`, `scope` and the optional fields of a row.
        salt: The same salt gives the same hashes in several reports; None: random, and stored nowhere.
        suspects: Further texts to hide like forget answers.
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
        """Return the replacement of a text, chosen so that its digits contain no secret themselves."""
        if not text:
            return text
        folded = unicodedata.normalize("NFKC", " ".join(text.split())).casefold()
        for i in range(_TRIES):
            digits = self._hash(folded if i == 0 else f"{folded}\0{i}")
            # The label reveals nothing; check only the digits and the characters next to them.
            if not self._secrets.has("redacted"[1 - LENGTH :] + f" {digits}]"):
                return f"[redacted {digits}]"
        return "[redacted]"

    def scrub(self, text: str) -> str:
        """Replace the secret parts of a text, by whole words."""
        found = self._scrubbed.get(text)
        if found is None:
            parts, end = [], 0
            for start, stop in self._secrets.spans(text):
                parts += [text[end:start], self.hide(text[start:stop])]
                end = stop
            found = self._scrubbed[text] = "".join([*parts, text[end:]])
        return found

    def seal(self, text: str) -> str:
        """Return the salted hash of a text that is no answer, such as an unsalted hash."""
        return self._hash(text)

    def _hash(self, text: str) -> str:
        return hmac.new(self._salt, text.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()[:12]


class Open:
    """Hides nothing: replaces `Redaction` in a report without redaction."""

    def hide(self, text: str) -> str:
        """Return the text unchanged."""
        return text

    def scrub(self, text: str) -> str:
        """Return the text unchanged."""
        return text
