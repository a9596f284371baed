"""Rows, general text and attack prompts: fields that their schemas forbid, and lines that are no JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from pydantic import TypeAdapter

from scopewise.data.rows import Row

from ..ground import rows
from ..inputs import Family, Folder, Input
from ..schema import Bad, bad_values, misspelt, with_bad
from ..text import any_of, broken_bytes, broken_json, broken_yaml, to_json
from .run_file import to_yaml

_READ_ROWS = (("check", "run.yaml"), ("evaluate", "model", "run.yaml"), ("bench", "run.yaml"), ("unlearn", "run.yaml"))
_READ_GENERAL = (*_READ_ROWS[:1], *_READ_ROWS[2:])
_PROMPTS = (
    "attack",
    "runs/done",
    "--attack",
    "prompts",
    "--set",
    "attack_args.prompts.file=prompts.yaml",
    "--overwrite",
)
_READ_PROMPTS = (("check", "run.yaml"), _PROMPTS)


def bad_fields() -> list[Bad]:
    """Return what the fields of a row forbid. Where a row may lack a field, null is as if it did."""
    schema = TypeAdapter(Row).json_schema()
    del schema["properties"]["origin"]
    required = set(schema["required"])
    found = [bad for bad in bad_values(schema) if bad.value is not None or bad.path[0] in required]
    found += [Bad((key,), empty, "is empty") for key in required for empty in ("", "  ", "\n")]
    found += [Bad((key,), wrong, "is no name") for key in ("scope", "split") for wrong in ("Forget", "tst", "")]
    return [bad for bad in found if bad.path[-1] != "split" or bad.value != ""]


def as_line(record: Any) -> bytes:
    """Return JSON on one line."""
    return to_json(record).replace(b"\n", b"")


def _lines(records: list[bytes]) -> bytes:
    return b"\n".join(records) + b"\n"


def _rows(ground: Path, random: Random) -> Iterator[Input]:
    good = rows()
    fields = bad_fields()
    random.shuffle(fields)
    for round_ in range(1000):
        at = random.randrange(len(good))
        lines = [as_line(record) for record in good]
        command = random.choice(_READ_ROWS[:1] * 3 + _READ_ROWS)
        for bad in fields[10 * round_ : 10 * round_ + 10]:
            changed = [*lines[:at], as_line(with_bad(good[at], bad)), *lines[at + 1 :]]
            yield Input(f"row {at}: {bad.path} {bad.why}", command, {"rows.jsonl": _lines(changed)})
        for what, line in any_of(broken_json)(lines[at], random)[:4]:
            if line.strip():
                yield Input(f"row {at}: {what}", command, {"rows.jsonl": _lines([*lines[:at], line, *lines[at + 1 :]])})
        for what, text in any_of(broken_bytes)(_lines(lines), random)[:1]:
            yield Input(f"file: {what}", command, {"rows.jsonl": text})
        for what, text in _whole(good, random):
            yield Input(what, command, {"rows.jsonl": text})


def _whole(good: list[dict[str, Any]], random: Random) -> Iterator[tuple[str, bytes]]:
    scope = random.choice(["forget", "retain"])
    other = {"forget": "retain", "retain": "forget"}[scope]
    yield "an empty file", b"\n" * random.randrange(5)
    yield "one array", json.dumps(good).encode()
    yield f"no row of scope {scope}", _lines([as_line(row) for row in good if row["scope"] != scope])
    yield "no train row", _lines([as_line({**row, "split": "val"}) for row in good])
    both = {**next(row for row in good if row["scope"] == scope), "scope": other}
    both["question"] = random.choice([str(both["question"]), str(both["question"]).upper(), f"  {both['question']} "])
    yield "a question in both scopes", _lines([as_line(row) for row in [*good, both]])


def _general(ground: Path, random: Random) -> Iterator[Input]:
    good = (ground / "general.jsonl").read_bytes().splitlines()
    for _ in range(1000):
        arguments = random.choice(_READ_GENERAL[:1] * 3 + _READ_GENERAL)
        wrong: list[tuple[str, bytes]] = [
            ("an empty file", b"\n" * random.randrange(5)),
            ("no text", b'{"txt": "some words"}'),
            ("empty text", b'{"text": " "}'),
            *((f"text is {value!r}"[:60], as_line({"text": value})) for value in (3, 1.5, None, True, [], ["a"], {})),
            ("a lone surrogate", b'{"text": "a \\ud800 b"}'),
            *[(what, line) for what, line in any_of(broken_json)(good[0], random)[:6] if line.strip()],
        ]
        for what, line in wrong:
            lines = [line] if "file" in what else [*good, line]
            yield Input(f"general text: {what}", arguments, {"general.jsonl": _lines(lines)})
        short = (*arguments, "--set", "data.general=general.txt")
        yield Input("paragraphs of a few words", short, {"general.txt": b"one two\n" * random.randrange(1, 9)})
        for what, text in any_of(broken_bytes)(b"word " * 50, random)[:2]:
            yield Input(f"general text: {what}", short, {"general.txt": text})
        yield Input("general text is a folder", short, {"general.txt": Folder()})


def _prompts(ground: Path, random: Random) -> Iterator[Input]:
    text = (ground / "prompts.yaml").read_bytes()
    fields = ("question", "instance", "hint", "example_question", "example_answer", "cloze")
    for _ in range(1000):
        wrong: list[Any] = [
            {"kind": random.choice([None, 3, "text", {}, [], [[]], [3], [None], [True], {"text": "{question}"}])},
            {"kind": ["without the field"]},
            {"kind": ["{question} {" + misspelt(random.choice(fields)) + "}"]},
            {"kind": [{"start": "no text"}]},
            {"kind": [{"text": random.choice([3, None, ["{question}"], "{question} {}", "{question} {0}"])}]},
            {"kind": [{"text": "{question}", misspelt("replace"): {"a": "b"}}]},
            {"kind": [{"text": "{question}", "replace": random.choice([3, "text", ["a"], True])}]},
            {"kind": [{"text": "{question}", "start": random.choice([3, ["a"], {}, True])}]},
            {"kind": [{"text": "{question}", "replace": {"live": random.choice([3, None, ["a"], {}])}}]},
            {"kind": ["{question} \ud800"]},
        ]
        for document in wrong:
            command = random.choice(_READ_PROMPTS)
            yield Input(f"prompts: {ascii(document)[:80]}", command, {"prompts.yaml": to_yaml(document)})
        for what, damaged in any_of(broken_yaml)(text, random)[:10]:
            if "section" not in what:
                yield Input(f"prompts: {what}", random.choice(_READ_PROMPTS), {"prompts.yaml": damaged})


FAMILIES = (
    Family("rows", _rows, _READ_ROWS),
    Family("general", _general, _READ_GENERAL[:1]),
    Family("prompts", _prompts, _READ_PROMPTS),
)
