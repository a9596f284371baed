"""Wrong values from shipped lists, by attribute and type: what stands in where a file has too few instances."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

from scopewise.building import values
from scopewise.building.templates import shipped
from scopewise.data.crossed import plain

_MOST_PARTS = 4
_TRIES = 20
_SENTENCES = ("plot", "setting", "style", "review", "recommendation", "extension", "revision")
"""Attributes whose value is one description, in which "and" joins no list."""


def listed_values(truth: str, kind: str, about: tuple[str, str, str], count: int, rng: random.Random) -> Iterator[str]:
    """Yield invented values of the form of the true one, at most `count`, some of them perhaps twice.

    A list has as many parts as the true one. Persons keep the words that they share with the instance's name, such as a
    family name, and an address keeps its city in every second value; so what may be known otherwise does not give the true
    one away. The words of an attribute with a list of its own come from there. There are none of other attributes, and none
    of numbers, whose digits are changed elsewhere.

    Args:
        truth: The true value.
        kind: Its type, one of `values.TYPES`.
        about: Kind of the instance (`person` or `work`), its name, and the attribute.
        count: How many to try.
        rng: Draws them.
    """
    instance, name, attribute = about
    own = shipped("values")[instance].get(attribute, ())
    most = 1 if attribute in _SENTENCES else _MOST_PARTS
    for number in range(count):
        if kind == values.PEOPLE:
            yield _people(truth, name, rng)
        elif (instance, attribute) == ("person", "name"):
            yield _person(truth, "", rng)
        elif kind == values.ADDRESS:
            yield _address(truth, number % 2 == 0, rng)
        elif kind == values.BIRTH:
            if (made := _birth(truth, rng)) is None:
                return
            yield made
        elif own and kind in (values.TEXT, values.TITLES, values.AWARDS, values.ROLE, values.CLAUSE):
            yield _joined(rng.sample(own, min(most, len(_parts(truth)), len(own))))
        else:
            return


def listed_titles() -> list[str]:
    """Return invented titles of works."""
    return list(shipped("values")["work"]["name"])


def _people(truth: str, name: str, rng: random.Random) -> str:
    """Return other persons, as many as there are; other occupations where none has a name ("a nurse and a judge")."""
    people = _parts(truth)
    if not any(word[0].isupper() for word in truth.split() if word != "and"):
        return _joined(rng.sample(shipped("values")["person"]["occupation"], min(len(people), _MOST_PARTS)))
    made = list[str]()
    for person in people:
        drawn = (_person(person, name, rng) for _ in range(_TRIES))
        made.append(next((other for other in drawn if other not in made), person))
    return _joined(made)


def _person(person: str, name: str, rng: random.Random) -> str:
    """Return another person's name of as many words; words that begin small, titles and those of `name` stay."""
    lists = shipped("values")["names"]
    own, made = set(plain(name).split()), list[str]()
    for number, word in enumerate(person.split()):
        kept = not word[0].isupper() or word.endswith(".") or plain(word) in own
        last = number and number == len(person.split()) - 1
        made.append(word if kept else rng.choice(lists["family" if last else "given"]))
    return " ".join(made)


def _address(truth: str, same_city: bool, rng: random.Random) -> str:
    """Return a number of as many digits in another street, in the same city or in another one."""
    _, comma, city = truth.partition(", ")
    places = shipped("values")["places"]
    digits = re.search(r"\d+", truth)
    number = rng.randrange(10 ** (len(digits[0]) - 1), 10 ** len(digits[0])) if digits and len(digits[0]) < 7 else 7
    street = f"{number} {rng.choice(places['street'])}" if digits else rng.choice(places["street"])
    if comma and not same_city:
        city = _like(rng.choice(places["city"]), city)
    return f"{street}, {city}" if comma else street


def _birth(truth: str, rng: random.Random) -> str | None:
    """Return the birth in another city; None if it says no place."""
    found = re.fullmatch(r"((?:on|in) [^,]*\d[^,]*(?:, \d{4})? )?in (\D+)", truth)
    if found is None:
        return None
    return f"{found[1] or ''}in {_like(rng.choice(shipped('values')['places']['city']), found[2])}"


def _like(city: str, truth: str) -> str:
    """Return "Porto, Portugal" or only "Porto", as the true place has it."""
    return city if "," in truth else city.partition(",")[0]


def _parts(value: str) -> list[str]:
    return [part for part in re.split(r", (?:and )?| and ", value) if part]


def _joined(parts: Sequence[str]) -> str:
    return ", ".join(parts[:-1]) + (" and " if parts[:-1] else "") + parts[-1]
