"""The types of attributes: what a value must look like, and how it is written in a sentence."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from scopewise.errors import DataError

TEXT, PEOPLE, TITLES, AWARDS, EMAIL, PHONE = "text", "people", "titles", "awards", "email", "phone"
ADDRESS, NUMBER, BIRTH, ROLE, CLAUSE = "address", "number", "birth", "role", "clause"
TYPES = (TEXT, PEOPLE, TITLES, AWARDS, EMAIL, PHONE, ADDRESS, NUMBER, BIRTH, ROLE, CLAUSE)
LONGEST = 500
"""Characters of a value; a longer one is no fact but a text."""

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_MONTH = rf"(?:{'|'.join(MONTHS)}|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\.?"
# Lengths are bounded and a match begins at a boundary, so that a hostile text is searched in linear time.
EMAIL_PATTERN = (
    r"(?<![\w.+-])[A-Za-z0-9](?:[A-Za-z0-9_.+-]{0,62}[A-Za-z0-9_])?@(?:[A-Za-z0-9-]{1,63}\.){1,6}[A-Za-z]{2,24}"
)
PHONE_PATTERN = r"(?<!\d)\+?\(?\d[\d ()/.-]{5,20}\d(?!\d)"
DATE_PATTERN = (
    rf"\d{{1,2}}(?:st|nd|rd|th)? {_MONTH} \d{{4}}|{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?, \d{{4}}|\d{{4}}-\d{{2}}-\d{{2}}"
    r"|\d{1,2}[./]\d{1,2}[./]\d{4}"
)
_FORMS = {
    EMAIL: (rf"{EMAIL_PATTERN}", "an e-mail address, such as ada@mail.example"),
    PHONE: (PHONE_PATTERN, "a phone number of at least 7 digits"),
    NUMBER: (r".*\d.*", "a text with a digit"),
    ADDRESS: (r"(?s).*\w.*", "an address"),
}


def written(value: Any, kind: str, where: str) -> str:
    """Return a value as it is written in a sentence.

    A list is joined by "and", a role and an award get their article, a birth "on" or "in".

    Args:
        value: A text, a number, a list of them, or a mapping of `date` and `place` for a birth.
        kind: One of `TYPES`.
        where: File, instance and attribute, for messages.

    Raises:
        DataError: another value, one that is not of its type, or one with control characters; one sentence.
    """
    if isinstance(value, Mapping):
        if kind != BIRTH or not value or not value.keys() <= {"date", "place"}:
            raise DataError(f"{where}: a mapping; a value is a text or a list, and only a birth has 'date' and 'place'")
        date, place = (_plain(value[key], where) if key in value else "" for key in ("date", "place"))
        return " ".join(filter(None, (date and f"{_on(date)} {date}", place and f"in {place}")))
    if isinstance(value, list):
        if not value:
            raise DataError(f"{where}: an empty list; give at least one value, or leave the attribute out")
        parts = [_plain(one, where) for one in value]
        parts = [_award(part) for part in parts] if kind == AWARDS else parts
        return ", ".join(parts[:-1]) + (" and " if parts[:-1] else "") + parts[-1]
    text = _plain(value, where)
    if kind in _FORMS and not re.fullmatch(_FORMS[kind][0], text):
        raise DataError(f"{where}: {text[:80]!r}; {_FORMS[kind][1]} is needed; correct it, or rename the attribute")
    if kind == BIRTH:
        return text if re.match(r"(on|in|at|near) ", text) else f"{_on(text)} {text}"
    if kind == ROLE:
        return text if re.match(r"(an?|the) ", text) else f"{_article(text)} {text}"
    if kind == AWARDS:
        return _award(text)
    return text.removesuffix(".") if kind in (TEXT, CLAUSE) else text


def is_safe(text: str) -> bool:
    """Return whether a text has no control, format or other invisible character (spaces are allowed)."""
    return not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") for c in text)


def cleaned(text: str) -> str:
    """Return a text of another's document without control and invisible characters; white space becomes single spaces."""
    return " ".join("".join(c if is_safe(c) else " " for c in text).split())


def _plain(value: Any, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(f"{where}: {type(value).__name__}; a value is a text, a number or a list of them; write it so")
    text = " ".join(str(value).split())
    if not text:
        raise DataError(f"{where}: empty; give a value, or leave the attribute out")
    if not is_safe(text):
        raise DataError(f"{where}: a control or invisible character in {text[:80]!r}; remove it")
    if len(text) > LONGEST:
        raise DataError(f"{where}: {len(text)} characters; at most {LONGEST} are one fact; shorten it, or make several")
    return text


def _on(text: str) -> str:
    return "on" if re.match(DATE_PATTERN, text) else "in"


def _article(text: str) -> str:
    """Return "an" before a vowel that is heard, else "a"; "a union leader", "an honorary consul"."""
    vowel = r"(?!uni(?!n|m)|u[skt][aeiou]|uro|eu|ewe|one\b)[aeiou]|hour|honou?r|honest|heir"
    return "an" if re.match(vowel, text, re.I) else "a"


def _award(text: str) -> str:
    """Return "the Hollis Vane Medal" of "Hollis Vane Medal", "the Order of the Quire"; other awards as they are."""
    named = r"[A-Z].*\b(Award|Prize|Medal|Order|Cup|Fellowship|Scholarship)\b|(Order|Prize|Medal|Cup) (of|for) |Prix "
    return f"the {text}" if re.match(named, text) and not text.startswith(("The ", "A ")) else text
