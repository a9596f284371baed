"""Find the parts of a text that occur only in secret texts: runs of four characters, and short words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache

LENGTH = 4
"""Characters of the shortest run that is secret anywhere in a text; shorter secrets are matched as whole words only."""

_IGNORED = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
"""Invisible characters, besides controls and format characters (zero width, soft hyphen, direction)."""
_HAN, _KANA = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff", "\u3040-\u30ff\uff66-\uff9f"
_UNSPACED = re.compile(f"[{_HAN}][{_HAN}{_KANA}]?|[{_KANA}][{_HAN}{_KANA}]")
_ALIKE = str.maketrans(dict.fromkeys("‘’‛ʼ′`´＇", "'") | dict.fromkeys("“”„‟″", '"') | dict.fromkeys("‐‑‒–—―−", "-"))
_WORD = re.compile(r"[^\W_]+")
_PLAIN = re.compile(r"[\x00-\x1f\x7f]|  ")
_LETTER = f"[^\\W{_HAN}{_KANA}]"
_MARK = "[\u00ad\u0300-\u036f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]"
_TOKEN = re.compile(
    rf"\+?\(?\d[\d\s().+\-/]*\d|(?:{_LETTER}|[@+#])(?:{_LETTER}|{_MARK}|[@.+\-'’‘ʼ`´&/:%#~=?!$*](?=(?:{_MARK})*(?:{_LETTER}|[@+])))*"
)
"""Units that are hidden whole if a part is secret: a word, a name with possessive, an e-mail, a URL, a phone number."""

Form = tuple[str, list[int], list[int]]
"""A normalised text, and the start and end in the original text of each of its characters."""


class Secrets:
    """Finds text that occurs only in secret texts.

    Texts are compared without case and invisible characters, in four forms: composed (NFKC), the same with quotes and
    dashes unified, decomposed (NFKD), and letters and digits only. Secret is what some secret text has and no public
    one: a run of four characters, a whole word of any length, and in scripts without spaces a run of two characters
    (one of Han).

    Args:
        secret: Secret texts.
        public: Public texts.
    """

    def __init__(self, secret: Iterable[str], public: Iterable[str]) -> None:
        hidden, known = _Runs(secret), _Runs(public)
        self._words = hidden.words - known.words
        self._unspaced = hidden.unspaced - known.unspaced
        self._grams = [mine - theirs for mine, theirs in zip(hidden.grams, known.grams, strict=True)]
        self._nothing = not (self._words or self._unspaced or any(self._grams))

    def has(self, text: str) -> bool:
        """Return whether a text contains a secret."""
        return any(self._covered(text))

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return start and end of the parts to hide: whole words, joined if only spaces or marks are between them."""
        covered = self._covered(text)
        found: list[tuple[int, int]] = []
        at = covered.find(1)
        while at >= 0:
            end = covered.find(0, at)
            end = len(text) if end < 0 else end
            if found and not any(c.isalnum() for c in text[found[-1][1] : at]):
                found[-1] = (found[-1][0], end)
            else:
                found.append((at, end))
            at = covered.find(1, end)
        return found

    def _covered(self, text: str) -> bytearray:
        covered = bytearray(len(text))
        if self._nothing or not text:
            return covered
        forms = _forms(text)
        composed = forms[0][0]
        for form in (forms[0], forms[4]):
            for match in _WORD.finditer(form[0]):
                if match[0] in self._words:
                    _cover(covered, form, match.start(), match.end())
        for start, run in _unspaced(composed):
            if run in self._unspaced:
                _cover(covered, forms[0], start, start + len(run))
        apart = []
        for form, secret in zip(forms[:4], self._grams, strict=True):
            for i, gram in enumerate(_grams(form[0])):
                if gram in secret:
                    if form is not forms[3] and all(map(_in_word, gram)):
                        _cover(covered, form, i, i + LENGTH)
                    else:
                        apart.append((form[1][i], form[2][i + LENGTH - 1]))
        _whole_tokens(text, covered)
        # A run across words is broken already if one of its words is hidden.
        for start, end in apart:
            if 1 not in covered[start:end]:
                covered[start:end] = b"\1" * (end - start)
                _whole_tokens(text, covered)
        return covered


class _Runs:
    """Words and runs of some texts."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.words: set[str] = set()
        self.unspaced: set[str] = set()
        self.grams: tuple[set[str], ...] = (set(), set(), set(), set())
        for text in dict.fromkeys(texts):
            forms = _forms(text)
            self.words.update(_WORD.findall(forms[0][0]), _WORD.findall(forms[4][0]))
            self.unspaced.update(run for _, run in _unspaced(forms[0][0]))
            for (folded, _, _), grams in zip(forms[:4], self.grams, strict=True):
                grams.update(_grams(folded))


def _grams(text: str) -> Iterator[str]:
    return (text[i : i + LENGTH] for i in range(len(text) - LENGTH + 1))


def _unspaced(text: str) -> Iterator[tuple[int, str]]:
    """Return the position of each run of two characters of scripts without spaces, and of each Han character."""
    for i in range(len(text)):
        if text[i] > "\u2fff" and (match := _UNSPACED.match(text, i)):
            yield i, match[0]
            if len(match[0]) == 2 and _UNSPACED.fullmatch(match[0][0]):
                yield i, match[0][0]


def _in_word(c: str) -> bool:
    return c.isalnum() or unicodedata.category(c)[0] == "M"


def _cover(covered: bytearray, form: Form, start: int, end: int) -> None:
    first, last = form[1][start], form[2][end - 1]
    covered[first:last] = b"\1" * (last - first)


def _whole_tokens(text: str, covered: bytearray) -> None:
    if 1 in covered:
        for match in _TOKEN.finditer(text):
            if 1 in covered[match.start() : match.end()]:
                covered[match.start() : match.end()] = b"\1" * (match.end() - match.start())


def _forms(text: str) -> tuple[Form, ...]:
    """Return a text composed, with quotes unified, decomposed, as letters and digits only, and without accents."""
    if text.isascii() and not _PLAIN.search(text):
        folded = text.lower()
        where = list(range(len(text)))
        ends = list(range(1, len(text) + 1))
        kept = [i for i in where if folded[i].isalnum()]
        plain = (folded, where, ends)
        bare = ("".join([folded[i] for i in kept]), kept, [i + 1 for i in kept])
        return plain, (folded.replace("`", "'"), where, ends), plain, bare, plain
    found: tuple[tuple[list[str], list[int], list[int]], ...] = tuple(([], [], []) for _ in range(5))
    for start, end in _clusters(text):
        for (parts, firsts, lasts), piece in zip(found, _folded(text[start:end]), strict=True):
            parts.append(piece)
            firsts.extend([start] * len(piece))
            lasts.extend([end] * len(piece))
    return tuple(("".join(parts), firsts, lasts) for parts, firsts, lasts in found)


def _clusters(text: str) -> Iterator[tuple[int, int]]:
    """Return start and end of each character with its combining marks, and of each run of spaces."""
    start = 0
    for i in range(1, len(text) + 1):
        if i == len(text) or not _continues(text[i], text[start]):
            yield start, i
            start = i


@lru_cache(maxsize=1 << 16)
def _continues(c: str, first: str) -> bool:
    if first.isspace():
        return c.isspace() or _is_nothing(c)
    return _is_nothing(c) or unicodedata.category(c)[0] == "M" or "\u1160" <= c <= "\u11ff"


@lru_cache(maxsize=1 << 12)
def _is_nothing(c: str) -> bool:
    return not c.isspace() and (unicodedata.category(c) in ("Cf", "Cc", "Cs") or _IGNORED.match(c) is not None)


@lru_cache(maxsize=1 << 16)
def _folded(cluster: str) -> tuple[str, ...]:
    shown = "".join(c for c in cluster if not _is_nothing(c))
    if shown.isspace():
        return " ", " ", " ", "", " "
    shown = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", shown).casefold())
    composed = "".join(c for c in shown if not _is_nothing(c))
    decomposed = unicodedata.normalize("NFKD", composed)
    unmarked = "".join(c for c in decomposed if unicodedata.category(c)[0] != "M")
    return composed, composed.translate(_ALIKE), decomposed, "".join(c for c in unmarked if c.isalnum()), unmarked
