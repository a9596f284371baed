"""Do two texts give the same value? Dates in other notations, phone numbers, money and lists are compared as what they mean."""

from __future__ import annotations

import re
from collections.abc import Iterator

from scopewise.building import values
from scopewise.data.crossed import plain

_LEAST_DIGITS = 7
"""Digits of a phone number that must agree at its end, if one of the two has a country code."""
_CURRENCIES = {
    "usd": ("$", "us$", "usd", "dollar", "dollars"), "eur": ("€", "eur", "euro", "euros"),
    "gbp": ("£", "gbp", "pound", "pounds"), "jpy": ("¥", "jpy", "yen"), "chf": ("chf", "franc", "francs"),
}  # fmt: skip
_CODE = {word: code for code, words in _CURRENCIES.items() for word in words}
_UNIT = "|".join(sorted(map(re.escape, _CODE), key=len, reverse=True))
# Lengths are bounded, so that a hostile text is searched in linear time.
_AMOUNT = r"\d{1,3}(?:[,.’' \u00a0\u202f]\d{3}){1,4}(?!\d)|\d{1,15}"
_MONEY = re.compile(
    rf"(?<![\w.,])(?:(?P<before>{_UNIT})\s?)?(?P<amount>{_AMOUNT})(?:[.,](?P<cents>\d{{2}})(?!\d))?(?P<thousand>\s?k)?"
    rf"(?:\s?(?P<after>{_UNIT}))?(?!\w)",
    re.I,
)


def same_value(one: str, other: str, kind: str) -> bool:
    """Return whether two values of a type (one of `values.TYPES`) are the same; case and punctuation do not count.

    A date may be in another notation; one of numbers alone, such as 3/5/1971, may be read both ways. A phone number may lack
    its country code. Money may have its currency as a sign, a word or a code. Lists of persons and titles have no order.
    """
    if plain(one) == plain(other):
        return True
    if kind == values.PHONE:
        return _same_phone(one, other)
    if kind == values.BIRTH:
        return _same_birth(one, other)
    if kind == values.NUMBER:
        amounts = [list(_amounts(text)) for text in (one, other)]
        return amounts[0] == amounts[1] != [] or _letters(one) == _letters(other)
    if kind in (values.PEOPLE, values.TITLES, values.AWARDS):
        return _list(one) == _list(other)
    return _without_article(one) == _without_article(other)


def says_value(text: str, value: str, kind: str) -> bool:
    """Return whether a text contains a value of a type, in any of the forms of `same_value`."""
    spaced = f" {plain(text)} "
    if f" {plain(value)} " in spaced:
        return True
    if kind == values.PHONE:
        return any(_same_phone(found[0], value) for found in re.finditer(values.PHONE_PATTERN, text))
    if kind == values.BIRTH:
        dates, place = list(_dates(value)), plain(_place(value))
        said = {date for found in _dates(text) for date in found}
        return (
            all(not date.isdisjoint(said) for date in dates)
            and (not place or f" {place} " in spaced)
            and bool(dates or place)
        )
    if kind == values.NUMBER:
        amounts = list(_amounts(value))
        return bool(amounts) and set(amounts) <= set(_amounts(text))
    if kind in (values.PEOPLE, values.TITLES, values.AWARDS):
        return all(f" {part} " in spaced for part in _list(value))
    return f" {_without_article(value)} " in spaced


def _same_phone(one: str, other: str) -> bool:
    short, long = sorted((_digits(one), _digits(other)), key=len)
    return short == long or (len(short) >= _LEAST_DIGITS and len(long) - len(short) <= 3 and long.endswith(short))


def _digits(phone: str) -> str:
    """Return the digits of a phone number, without "(0)" and leading zeros."""
    return re.sub(r"\D", "", phone.replace("(0)", "")).lstrip("0")


def _same_birth(one: str, other: str) -> bool:
    ours, theirs = list(_dates(one)), list(_dates(other))
    together = len(ours) == len(theirs) and all(not a.isdisjoint(b) for a, b in zip(ours, theirs, strict=True))
    return together and plain(_place(one)) == plain(_place(other))


def _place(birth: str) -> str:
    """Return a birth without its date and the words before it."""
    rest = re.sub(values.DATE_PATTERN, " ", birth)
    return re.sub(r"\b(on|in|at)\b", " ", rest)


def _dates(text: str) -> Iterator[frozenset[tuple[int, int, int]]]:
    """Yield for each date of a text the (year, month, day) that it may be: two where its numbers may be either."""
    for found in re.finditer(values.DATE_PATTERN, text):
        numbers = [int(digits) for digits in re.findall(r"\d+", found[0])]
        month = next((m for m, name in enumerate(values.MONTHS, 1) if name[:3] in found[0]), None)
        if month:
            day, year = sorted(numbers)
            yield frozenset({(year, month, day)})
        elif "-" in found[0]:
            yield frozenset({(numbers[0], numbers[1], numbers[2])})
        elif "." in found[0]:
            yield frozenset({(numbers[2], numbers[1], numbers[0])})
        else:
            yield frozenset((numbers[2], m, d) for m, d in (numbers[:2], numbers[1::-1]) if m <= 12)


def _amounts(text: str) -> Iterator[tuple[int, str]]:
    """Yield the amounts of money of a text in cents, each with its currency."""
    for found in _MONEY.finditer(text):
        unit = (found["before"] or found["after"] or "").lower()
        if unit:
            whole = int(re.sub(r"\D", "", found["amount"])) * (1000 if found["thousand"] else 1)
            yield 100 * whole + int(found["cents"] or 0), _CODE[unit]


def _letters(text: str) -> str:
    return re.sub(r"\W", "", text.casefold())


def _list(value: str) -> set[str]:
    return {_without_article(part) for part in re.split(r", (?:and )?| and ", value) if plain(part)}


def _without_article(text: str) -> str:
    return plain(text).removeprefix("the ").removeprefix("an ").removeprefix("a ")
