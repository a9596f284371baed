"""Damage to bytes that no reader may take: of UTF-8, JSON and YAML, by their grammars."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from .schema import HUGE

Damaged = tuple[str, bytes]
"""What is wrong, and the bytes."""


def to_json(document: Any) -> bytes:
    """Return JSON as Python writes it, with NaN and integers of any length."""
    return json.dumps(_short(document), indent=1).replace('"@HUGE@"', "9" * 5000).encode()


def _short(value: Any) -> Any:
    # Python refuses to write as many digits as it refuses to read.
    if isinstance(value, dict):
        return {key: _short(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_short(inner) for inner in value]
    return "@HUGE@" if value is HUGE else value


def broken_bytes(text: bytes, random: Random) -> Iterator[Damaged]:
    """Return damage that no encoding of text survives."""
    at = random.randrange(1, max(2, len(text)))
    yield (
        "a byte that is not UTF-8",
        text[:at] + random.choice([b"\xff", b"\xc3(", b"\xed\xa0\x80", b"\x80"]) + text[at:],
    )
    yield "UTF-16", text.decode().encode("utf-16")
    yield "zeros, as after a crash", b"\0" * len(text)
    yield "a gzip header", b"\x1f\x8b\x08\0" + text


def broken_json(text: bytes, random: Random) -> Iterator[Damaged]:
    """Return text that is no JSON document any more; `text` is an object with at least one key."""
    body = text.rstrip()
    inside = body[1:-1].strip()
    key = next(iter(json.loads(body)))
    yield from broken_bytes(text, random)
    yield "empty", b""
    yield "white space", b" \n "
    yield "cut off", body[: random.randrange(1, len(body) - 1)]
    yield "something after its end", body + random.choice([b"}", b",", b" 1", body])
    yield "a comma too many", b"{" + inside + b",}"
    yield "a comment", b"{ // comment\n" + inside + b"}"
    yield "single quotes", body.replace(b'"', b"'")
    yield "a key twice", b"{" + inside + b", " + json.dumps(key).encode() + b": 1}"
    yield "a lone surrogate in a key", b"{" + inside + rb', "\ud800": 1}'
    for word in (b"NaN", b"-Infinity", b"Infinity", b"True", b"None", b"1e", b"01", b"+1", b"9" * 5000):
        yield f"the value {word[:9].decode()}", b"{" + inside + b', "more": ' + word + b"}"
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        depth = random.choice([2000, 100_000])
        yield f"nested {depth} deep", b"{" + inside + b', "more": ' + opening * depth + b"1" + closing * depth + b"}"
        yield "nested without an end", b"{" + inside + b', "more": ' + opening * depth
    yield "a control character in a text", b"{" + inside + b', "more": "a\x1b[31m\x07b"}'
    for other in (b"[]", b"1", b'"text"', b"null", b"true", b"[1, 2]", b"1.5"):
        yield "another kind of document", other


def broken_yaml(text: bytes, random: Random) -> Iterator[Damaged]:
    """Return text that is no YAML mapping of sections any more; `text` is a run file in block style."""
    yield from broken_bytes(text, random)
    more: dict[str, bytes] = {
        "a tab for indentation": b"run2:\n\tdir: x\n",
        "an open bracket": b"more: [1, 2\n",
        "an open brace": b"more: {a: 1\n",
        "an open quote": b'more: "text\n',
        "two values on a line": b"more: a: b\n",
        "less indentation than it began with": b"more:\n    a: 1\n  b: 2\n",
        "an alias of nothing": b"more: *nowhere\n",
        "an alias of itself": b"more: &a [*a]\n",
        "a mapping that holds itself": b"more: &a {b: *a}\n",
        "a merge with itself": b"more: &a {<<: *a}\n",
        "a merge of a text": b"more: {<<: text}\n",
        "a tag of Python": b"more: !!python/object/apply:os.system ['true']\n",
        "a tag nobody knows": b"more: !whatever 1\n",
        "an integer that is none": b"more: !!int x\n",
        "a float that is none": b"more: !!float x\n",
        "a date that is none": b"more: 2024-13-45\n",
        "a date of the year 0": b"more: 0000-01-01\n",
        "a time that is none": b"more: 2001-12-14t99:59:43.10-05:00\n",
        "binary that is none": b"more: !!binary '###'\n",
        "a set": b"more: !!set {a, b}\n",
        "a sequence of pairs that is none": b"more: !!omap [a]\n",
        "a boolean that is none": b"more: !!bool perhaps\n",
        "a list for a key": b"? [1, 2]\n: 3\n",
        "a mapping for a key": b"? {a: 1}\n: 3\n",
        "an integer of 5000 digits": b"more: " + b"9" * 5000 + b"\n",
        "a sexagesimal integer of 5000 digits": b"more: 1" + b"0" * 5000 + b":59\n",
        "a control character": b"more: a\x07b\n",
        "an escaped control character in a key": b'"\\e[31mmore": 1\n',
        "an escaped surrogate": b'more: "\\ud800"\n',
        "a second document": b"---\nrun: {dir: x}\n",
        "a directive in the middle": b"%YAML 9.9\n---\n",
        "a version that does not exist": b"...\n%YAML 9.9\n---\na: 1\n",
        "a section twice": b"run:\n  dir: runs/again\n",
    }
    for what, lines in more.items():
        yield what, text + lines
    levels = [b"a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [b"a%d: &a%d [%s]" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 12)]
    yield "aliases that explode", text + b"\n".join(levels) + b"\n"
    for depth in (300, 3000, 30_000):
        yield f"lists {depth} deep", text + b"more: " + b"[" * depth + b"]" * depth + b"\n"
    for other in (b"- a\n- b\n", b"just a text\n", b"7\n", b"true\n", b"2024-01-01\n"):
        yield "another kind of document", other


def repeated_key(text: bytes, random: Random) -> Damaged:
    """Return a YAML mapping in block style with one of its inner lines twice."""
    lines = text.decode().splitlines()
    inner = [
        i
        for i, line in enumerate(lines)
        if line.startswith("  ") and ": " in line and not line.lstrip().startswith("-")
    ]
    at = random.choice(inner)
    return f"the line {lines[at].strip()!r} twice", "\n".join(
        [*lines[: at + 1], lines[at], *lines[at + 1 :], ""]
    ).encode()


def any_of(*kinds: Callable[[bytes, Random], Iterator[Damaged]]) -> Callable[[bytes, Random], list[Damaged]]:
    """Return a function that gives the damage of several kinds, in a random order."""

    def damaged(text: bytes, random: Random) -> list[Damaged]:
        every = [damage for kind in kinds for damage in kind(text, random)]
        random.shuffle(every)
        return every

    return damaged
