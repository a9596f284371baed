"""Answers of the forget scope replaced by salted hashes: a report of a deletion must not spread what was deleted."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

FORGET = "forget"
RUN = 4
"""Characters of the shortest run that is hidden where it stands in forget answers alone."""
_WORD = re.compile(r"[^\W_]+")
_NO_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Scripts written without spaces (Han, kana, Thai, Lao, Burmese, Khmer): two of these characters can be a name."""
_ALIKE = str.maketrans("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2018\u2019\u02bc`´", "-------'''''")
_JAMO = range(0x1160, 0x1200)
"""Vowels and finals of Korean syllables, which are letters and yet become one with what stands before them."""
_STEPS = ((re.compile(r"[^\w\s]|_"), ""), (re.compile(r"\s+"), " "), (re.compile(r"(?<=\d) (?=\d)"), ""))
"""What makes of a folded text one of letters and digits alone, where a number is one word however it is grouped."""
_FOLLOWS = ("Mn", "Mc", "Me", "Cf")
"""Categories of what belongs to the character before it."""
_VIEWS = ("NFC", "NFD", "NFKC", "NFKD", "plain", "bare")
"""How texts are compared: in each normal form of Unicode; `plain`, without accents; `bare`, also without punctuation."""

_WITHOUT_MARKS = _VIEWS[4:]
"""Those in which no mark cuts a word, or counts as a character of a pair."""


class Redaction:
    """Hides what the forget answers say and the rest of the data does not.

    A text about a forget row is replaced as a whole. In every other text what is secret is replaced, together with the words
    it stands in: a run of four characters (two of a script without spaces) or a whole word that some forget answer has and no
    question and no other answer has. Texts are compared without case and invisible characters in each normal form of Unicode,
    without accents, and without punctuation. So endings, cut-off words, glued words and parts of numbers are found as well.

    A hash is 12 hexadecimal digits of HMAC-SHA256 of the text without case and spacing: equal texts have equal hashes in one
    report, and without the salt nobody can try out guesses.

    Args:
        rows: All rows of the report and of its data, with `question`, `answer` and `scope`; of forget rows `others` may
            hold other wordings of the answer.
        salt: The same gives the same hashes in several reports; None: a random one that is kept nowhere.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]], salt: str | None = None) -> None:
        self._salt = secrets.token_bytes(32) if salt is None else salt.encode()
        secret: dict[str, set[str]] = {view: set() for view in _VIEWS}
        public: dict[str, set[str]] = {view: set() for view in _VIEWS}
        for text, forget in dict.fromkeys(_texts(rows)):  # each once: every model answered the same rows
            for view, seen in _views(text):
                (secret if forget else public)[view].update(_pieces(seen, words=view in _WITHOUT_MARKS))
        self._secret = {view: secret[view] - public[view] for view in _VIEWS}
        self._known: dict[str, str] = {}

    def hide(self, text: str) -> str:
        """Return the hash that stands for a text."""
        return f"[redacted {self._hash(text)}]" if text else text

    def scrub(self, text: str) -> str:
        """Return a text with what is secret in it replaced."""
        if text not in self._known:
            self._known[text] = text if self._is_safe(text) else self._scrubbed(text)
        return self._known[text]

    def _is_safe(self, text: str) -> bool:
        seen: dict[str, set[str]] = {}  # most views see the same of most texts
        for view, what in _views(text):
            if what not in seen:
                seen[what] = _pieces(what)
            if not self._secret[view].isdisjoint(seen[what]):
                return False
        return True

    def _scrubbed(self, text: str) -> str:
        hidden = [False] * len(text)
        parts = _parts(text)
        for view in _VIEWS:
            seen, places = _placed(view, [part for _, part in parts])
            for start, end in _spans(seen):
                if seen[start:end] in self._secret[view]:
                    first, last = parts[places[start]], parts[places[end - 1]]
                    # From the first character to the last, with what folding left out between them.
                    hidden[first[0] : last[0] + len(last[1])] = [True] * (last[0] + len(last[1]) - first[0])
        _whole_words(text, hidden)
        shown, start = [], 0
        while start < len(text):
            end = start + 1
            while end < len(text) and hidden[end] == hidden[start]:
                end += 1
            shown.append(self.hide(text[start:end]) if hidden[start] else text[start:end])
            start = end
        return "".join(shown)

    def _hash(self, text: str) -> str:
        # A text of a model may hold half of a surrogate pair, which has no bytes of its own.
        plain = " ".join(text.lower().split()).encode("utf-8", "surrogatepass")
        return hmac.new(self._salt, plain, hashlib.sha256).hexdigest()[:12]


class Open:
    """Hides nothing: what a report without redaction uses in its place."""

    def hide(self, text: str) -> str:
        """Return the text."""
        return text

    def scrub(self, text: str) -> str:
        """Return the text."""
        return text


def _texts(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, bool]]:
    """Return every text of the rows, and whether it is one that forget answers say."""
    for row in rows:
        yield row["question"], False
        forget = row["scope"] == FORGET
        yield row["answer"], forget
        if forget:
            yield from ((text, True) for text in row.get("others", ()))


def _views(text: str) -> list[tuple[str, str]]:
    """Return a text as each view sees it."""
    if text.isascii():
        plain = "".join(c if c.isprintable() or c.isspace() else "" for c in text) if not text.isprintable() else text
        plain = " ".join(plain.lower().split())
        found = [(view, plain) for view in _VIEWS[:-1]]
    else:
        parts = [part for _, part in _parts(text)]
        found = [(view, _placed(view, parts)[0].strip()) for view in _VIEWS[:-1]]
        plain = found[-1][1]
    for pattern, by in _STEPS:
        plain = pattern.sub(by, plain)
    return [*found, ("bare", plain.strip())]


def _parts(text: str) -> list[tuple[int, str]]:
    """Return a text cut where Unicode composes nothing, each part with its place: a character and its marks."""
    starts = [i for i, c in enumerate(text) if not i or not (ord(c) in _JAMO or unicodedata.category(c) in _FOLLOWS)]
    return [(start, text[start:end]) for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]


@lru_cache(maxsize=2**16)
def _folded(part: str, view: str) -> str:
    """Return what a view sees of a part: no case, nothing invisible."""
    form: Any = view if view in ("NFC", "NFD", "NFKC", "NFKD") else "NFKD"
    seen = "".join(c for c in part.translate(_ALIKE) if c.isspace() or unicodedata.category(c)[0] != "C")
    seen = unicodedata.normalize(form, unicodedata.normalize(form, seen).casefold())
    if form == view:
        return seen
    return "".join(c for c in seen if unicodedata.category(c)[0] != "M")


def _placed(view: str, parts: Sequence[str]) -> tuple[str, list[int]]:
    """Return what a view sees of a text, and of each of its characters which part it comes from."""
    folded = [_folded(part, view) for part in parts]
    seen, places = "".join(folded), [i for i, text in enumerate(folded) for _ in text]
    for pattern, by in _STEPS if view == "bare" else _STEPS[1:2]:
        seen, places = _substituted(pattern, by, seen, places)
    return seen, places


def _substituted(pattern: re.Pattern[str], by: str, view: str, places: list[int]) -> tuple[str, list[int]]:
    """Return `pattern.sub(by, view)`, where `by` has one character at the most, with the places of what is left."""
    kept: list[int] = []
    parts: list[str] = []
    last = 0
    for match in pattern.finditer(view):
        parts += [view[last : match.start()], by]
        kept += places[last : match.start()] + places[match.start() : match.start() + len(by)]
        last = match.end()
    return "".join([*parts, view[last:]]), kept + places[last:]


def _spans(view: str) -> Iterator[tuple[int, int]]:
    """Return where the pieces of a view stand that are compared: runs, pairs of a script without spaces, and words."""
    yield from ((i, i + RUN) for i in range(len(view) - RUN + 1))
    yield from (match.span() for match in _WORD.finditer(view))
    if not view.isascii():
        wide = [bool(_NO_SPACES.match(c)) for c in view]
        yield from ((i, i + 2) for i in range(len(view) - 1) if wide[i] and wide[i + 1])


def _pieces(view: str, *, words: bool = True) -> set[str]:
    found = {view[i : i + RUN] for i in range(len(view) - RUN + 1)}
    if words:
        found.update(_WORD.findall(view))
    if words and not view.isascii():
        found.update(view[i : i + 2] for i, j in _spans(view) if j == i + 2)
    return found


def _whole_words(text: str, hidden: list[bool]) -> None:
    """Hide the rest of a word of which a part is hidden, and what stands between hidden words."""
    joined = [(c.isalnum() or unicodedata.category(c) in ("Mn", "Mc", "Cf")) and not _NO_SPACES.match(c) for c in text]
    for order in (range(1, len(text)), range(len(text) - 2, -1, -1)):
        step = -1 if order.step > 0 else 1
        for i in order:
            hidden[i] = hidden[i] or (joined[i] and joined[i + step] and hidden[i + step])
    last = None
    for i, c in enumerate(text):
        if hidden[i]:
            if last is not None:
                hidden[last + 1 : i] = [True] * (i - last - 1)
            last = i
        elif c.isalnum():
            last = None
