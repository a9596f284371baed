"""Wrong answers of the same kind as a true one, and other names to ask about."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import lru_cache

from scopewise.data.crossed import plain
from scopewise.data.rows import Row

_COMMON_WORDS = """
a an the of in on at to by for from with and or but nor so yet is are was were be been being am has have had having it its he
his him himself she her hers herself they their them this that these those as who whom whose which what where when why how not
no yes very also too into onto over under after before since until while during you your i my me we our us can could will would
may might must shall should do does did done s t there here then than if because about between through out up down off again
once each every all any both few more most other some such only own same mr mrs ms dr
"""
_COMMON = frozenset(_COMMON_WORDS.split())
"""Words that carry no fact. They stay as they are, and with them the sentence and its pronouns."""
_ENDINGS = (
    "ing", "ed", "ly", "tion", "sion", "ment", "ness", "ity", "ive", "al", "ous", "ful", "ian", "ist", "er", "or",
    "s", "y", "e",
)  # fmt: skip
_ALIKE = 8
"""Words of one kind that are enough, in an answer with several words of its own."""
_TRIES = 40


def renamed(text: str, name: str, other: str) -> str:
    """Return the text about another instance: its name, and the parts of a person's name, also in an e-mail address.

    The parts of a name that is not a person's (it has a word that begins in lower case, or the, a, an) stay.
    """
    text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", lambda _: other, text)
    ours, theirs = _parts(name), _parts(other)
    if not ours or not theirs:
        return text
    for part, into in ((ours[0], theirs[0]), (ours[-1], theirs[-1])):
        for written in {part, _unaccented(part)}:
            text = re.sub(rf"(?<![^\W\d_]){re.escape(written)}(?![^\W\d_])", lambda _, w=into: w, text)  # type: ignore[misc]
            small = _unaccented(into).lower()
            text = re.sub(rf"(?<![^\W\d_]){re.escape(written.lower())}(?![^\W\d_])", lambda _, w=small: w, text)  # type: ignore[misc]
    return text


KNOWN_NAMES = {
    "privacy": (
        "Marie Curie", "Isaac Newton", "Ada Lovelace", "Charles Darwin", "Jane Austen", "Mark Twain", "Frida Kahlo",
        "Nelson Mandela", "Albert Einstein", "Rosa Parks", "Leo Tolstoy", "Florence Nightingale",
    ),
    "copyright": (
        "Hamlet", "Moby-Dick", "Pride and Prejudice", "Frankenstein", "Don Quixote", "The Odyssey", "Dracula",
        "War and Peace",
    ),
}  # fmt: skip
"""Persons of the past, and books in the public domain: names for questions where the rows have too few."""


def other_names(name: str, others: Sequence[str], count: int, rng: random.Random) -> list[str]:
    """Return names of no given instance, made of the parts of two others each; of well-known ones too if there are few.

    Args:
        name: The name that they stand in for; of a title, whole titles are returned.
        others: Names of other instances.
        count: How many.
        rng: Draws them.
    """
    person, known = bool(_parts(name)), same_kind(name, others)
    if len(known) < 3:  # too few to draw from
        known += [other for other in KNOWN_NAMES["privacy" if person else "copyright"] if other not in (name, *known)]
    if not person:
        return rng.sample(known, min(count, len(known)))
    people = [parts for other in known if (parts := _parts(other))]
    taken, found = {name, *others}, list[str]()
    for _ in range(_TRIES * count):
        if len(found) == count or len(people) < 2:
            break
        first, last = rng.sample(people, 2)
        made = f"{first[0]} {last[-1]}"
        if made not in taken:
            taken.add(made)
            found.append(made)
    return found


def same_kind(name: str, others: Sequence[str]) -> list[str]:
    """Return the other names that are of a person if the name is, or titles if it is one."""
    return [other for other in others if other != name and bool(_parts(other)) == bool(_parts(name))]


def wrong_answers(row: Row, kept: str, pools: Sequence[Sequence[str]], count: int, rng: random.Random) -> list[str]:
    """Return different answers with the row's sentence, in which each word that carries the fact is another one.

    Words are drawn from texts: from the first pools that have enough words that begin in the same case and have the same
    ending, so that a sentence stays one. Numbers are drawn from those of as many digits, so that a year stays one, or made of
    random digits where there are too few.

    Args:
        row: The question with its true answer.
        kept: Text whose words stay, such as the instance's name and what may be known of it; the question's stay too.
        pools: Texts of the same kind, the most similar first.
        count: How many.
        rng: Draws them.

    Returns:
        Fewer than `count`, or none, where the answer has no word of its own.
    """
    stay = _staying(row, kept)
    slots = own_words(row, kept)
    taken = {word.lower() for word in slots} | stay
    enough = count if len(slots) == 1 else min(count, _ALIKE)
    choices = {word: _choices(word, pools, taken, enough) for word in slots}
    truth, found = plain(row.answer), dict[str, str]()
    for _ in range(_TRIES * count):
        if len(found) == count or not slots:
            break
        drawn = {word: draw(rng) for word, draw in choices.items()}
        made = re.sub(r"\w+", lambda m: drawn.get(m[0], m[0]), row.answer)  # noqa: B023 - used at once
        if plain(made) != truth:
            found.setdefault(plain(made), made)
    return list(found.values())


def own_words(row: Row, kept: str) -> list[str]:
    """Return the words of a row's answer that carry its fact: not those of the question, of `kept`, or of every sentence."""
    stay = _staying(row, kept)
    return [word for word in dict.fromkeys(re.findall(r"\w+", row.answer)) if word.lower() not in stay]


def _staying(row: Row, kept: str) -> set[str]:
    return {*_COMMON, *_words(kept), *_words(row.question)}


def _choices(
    word: str, pools: Sequence[Sequence[str]], taken: Collection[str], count: int
) -> Callable[[random.Random], str]:
    """Return a function that draws another word of the same kind, as often as it is used."""
    if any(letter.isdigit() for letter in word):
        return _numbers(word, pools, taken, count)
    same, alike = list[str](), list[str]()
    for pool in pools:
        if len(set(alike)) >= count:
            break
        new = [w for text in pool for w in _lettered(text) if w.lower() not in taken]
        new = [w for w in new if w[0].isupper() == word[0].isupper()]
        alike += [w for w in new if _ending(w) == _ending(word)]
        same += new if len(set(same)) < count else []
    words = alike if len(set(alike)) >= count else same
    return lambda rng: rng.choice(words) if words else "".join(rng.sample(word, len(word)))


def _numbers(
    word: str, pools: Sequence[Sequence[str]], taken: Collection[str], count: int
) -> Callable[[random.Random], str]:
    """Return a function that draws another number of as many digits: from the pools, or digits at random."""
    form = re.sub(r"\d", "0", word)
    alike = [w for pool in pools for text in pool for w in _numbered(text) if re.sub(r"\d", "0", w) == form]
    alike = [w for w in alike if w.lower() not in taken]
    if len(set(alike)) >= count:
        return lambda rng: rng.choice(alike)
    return lambda rng: "".join(_other_digit(letter, i == 0, rng) for i, letter in enumerate(word))


@lru_cache(2**16)  # the same texts are read for each word of each answer
def _lettered(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[^\W\d_]+", text))


@lru_cache(2**16)
def _numbered(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w*\d\w*", text))


@lru_cache(2**16)
def _ending(word: str) -> str:
    """Return the ending that tells a word's part of speech, roughly; none of a name."""
    return "" if word[0].isupper() else next((e for e in _ENDINGS if word.endswith(e) and len(word) > len(e) + 1), "")


def _other_digit(letter: str, first: bool, rng: random.Random) -> str:
    return rng.choice("123456789" if first else "0123456789") if letter.isdigit() else letter


@lru_cache(4096)
def _parts(name: str) -> tuple[str, ...]:
    """Return the words of a person's name; none if it does not look like one."""
    parts = name.split()
    title = any(not part[0].isupper() or part.lower() in ("the", "a", "an") for part in parts)
    return () if title or len(parts) not in (2, 3) else tuple(parts)


def _words(text: str) -> Iterator[str]:
    for word in re.findall(r"\w+", text):
        yield word.lower()
        yield _unaccented(word).lower()


@lru_cache(4096)
def _unaccented(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
