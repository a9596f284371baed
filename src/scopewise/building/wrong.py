"""Wrong values of the same kind as a true one: of other instances, or the same form with other digits, words or domains."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Collection, Iterable, Iterator, Sequence

from scopewise.building import values
from scopewise.data.candidates import KNOWN_NAMES, wrong_answers
from scopewise.data.crossed import plain
from scopewise.data.rows import FORGET, Row

_DOMAINS = ("mail.example", "post.example", "letterbox.example", "inbox.example", "note.example", "courier.example")
_TRIES = 8


def wrong_values(
    truth: str,
    kind: str,
    pool: Sequence[str],
    general: Sequence[str],
    count: int,
    rng: random.Random,
    listed: Iterable[str] = (),
) -> list[str]:
    """Return `count` different values of the same kind as the true one; fewer only if its words allow no more.

    Args:
        truth: The true value.
        kind: Its type, one of `values.TYPES`.
        pool: Values of other instances for the same attribute; a few of them are drawn.
        general: Texts whose words are used where the pool and the list are too small.
        count: How many.
        rng: Draws them.
        listed: Values from a list, which follow those of the pool; see `listed_values`.
    """
    found: dict[str, str] = {}
    for value in _proposed(truth, kind, pool, count, rng, iter(listed)):
        if len(found) == count:
            break
        if plain(value) != plain(truth):
            found.setdefault(plain(value), value)
    if len(found) < count:
        row = Row("", truth, FORGET)
        for value in wrong_answers(row, "", [pool[:200], general], count, rng):
            if len(found) < count:
                found.setdefault(plain(value), value)
    return list(found.values())


def wrong_names(
    name: str,
    others: Sequence[str],
    count: int,
    rng: random.Random,
    known: Collection[str] | None = None,
    listed: Sequence[str] = (),
) -> list[str]:
    """Return names of no given instance beside some of others: real ones first, then listed ones, then halves joined.

    Args:
        name: The true one.
        others: Names of all instances of the kind.
        count: How many.
        rng: Draws them.
        known: The same as `others`, as a set, so that a call takes the same time however many there are; None makes one.
        listed: Names of a list, such as invented titles.
    """
    known, taken, found = set(others) if known is None else known, {name}, list[str]()
    drawn = [other for other in _drawn(others, min(count, 12), rng) if other != name]
    found += drawn[: count // 2]
    found += [other for other in _drawn(listed, count, rng) if other not in known and other != name][
        : count - len(found)
    ]
    parts = [*_drawn(others, 40, rng), *(known_name for names in KNOWN_NAMES.values() for known_name in names)]
    length = len(name.split())
    parts = [part for part in parts if part != name and abs(len(part.split()) - length) < 3] or parts
    for _ in range(_TRIES * count):
        if len(found) == count:
            break
        first, last = (rng.choice(parts).split() for _ in range(2))
        made = " ".join([*first[: max(1, len(first) // 2)], *last[max(1, len(last) // 2) :]])
        if made not in known and made not in taken and len(made.split()) > 1:
            taken.add(made)
            found.append(made)
    return found


def _proposed(
    truth: str, kind: str, pool: Sequence[str], count: int, rng: random.Random, listed: Iterator[str]
) -> Iterator[str]:
    drawn = _drawn(pool, 2 * count, rng)
    if kind == values.EMAIL:
        yield from _addresses(truth, drawn, count, rng)
        return
    if kind not in (values.PHONE, values.NUMBER):
        yield from (_other_digits(value, rng) for value in drawn) if kind == values.ADDRESS else drawn
    digits = kind in (values.PHONE, values.NUMBER, values.ADDRESS, values.BIRTH) and re.search(r"\d", truth)
    for _ in range(_TRIES * count):
        yield from itertools.islice(listed, 1)
        if digits:
            yield _other_digits(truth, rng)


def _addresses(truth: str, drawn: Sequence[str], count: int, rng: random.Random) -> Iterator[str]:
    """Yield the name of an e-mail address in other forms, at its own and other domains."""
    local, _, domain = truth.partition("@")
    words = [word for word in re.split(r"[._+-]", local) if word] or [local]
    forms = [".".join(words), "_".join(words), "-".join(reversed(words)), "".join(words), f"{words[0][0]}{words[-1]}"]
    forms += [f"{local}{rng.randrange(10, 99)}", f"mail.{local}"]
    domains = [domain, *(value.partition("@")[2] for value in drawn), *_DOMAINS]
    for _ in range(_TRIES * count):
        yield f"{rng.choice(forms)}@{rng.choice(domains)}"


def _other_digits(text: str, rng: random.Random) -> str:
    """Return a text with other digits: dates stay real dates in their notation, years near, other numbers of their length."""
    parts, end = list[str](), 0
    for found in re.finditer(values.DATE_PATTERN, text):
        parts += [_other_numbers(text[end : found.start()], rng), _other_date(found[0], rng)]
        end = found.end()
    return "".join([*parts, _other_numbers(text[end:], rng)])


def _other_numbers(text: str, rng: random.Random) -> str:
    def other(found: re.Match[str]) -> str:
        digits = found[0]
        if re.fullmatch(r"1[5-9]\d\d|20\d\d", digits):
            return str(_near_year(int(digits), rng))
        return rng.choice("123456789") + "".join(rng.choice("0123456789") for _ in digits[1:])

    return re.sub(r"\d+", other, text)


def _other_date(date: str, rng: random.Random) -> str:
    """Return another date: a year near it, and a day and a month from 1 to 12 where numbers could be either."""
    day, month = rng.randrange(1, 29), rng.randrange(1, 13)
    spelled = re.search(r"[A-Z][a-z]+", date)

    def other(found: re.Match[str]) -> str:
        digits = found[0]
        if len(digits) == 4:
            return str(_near_year(int(digits), rng))
        number = day if spelled or int(digits) > 12 else rng.randrange(1, 13)
        return f"{number:0{len(digits)}}" if digits.startswith("0") or "-" in date else str(number)

    made = re.sub(r"\d+", other, date)
    made = re.sub(r"(\d)(?:st|nd|rd|th)\b", lambda m: m[1] + _ordinal(day), made)
    if spelled:
        name = values.MONTHS[month - 1]
        made = re.sub(r"[A-Z][a-z]+", name if spelled[0] in values.MONTHS else name[:3], made, count=1)
    return made


def _ordinal(day: int) -> str:
    return "th" if day in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")


def _near_year(year: int, rng: random.Random) -> int:
    return year + rng.choice([*range(-25, 0), *range(1, 15)])


def _drawn(pool: Sequence[str], count: int, rng: random.Random) -> list[str]:
    return rng.sample(pool, min(count, len(pool)))
