"""The reader of text, JSON and YAML: what a library takes, or fails on in its own words, is one sentence of ours."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from scopewise.documents import parse_json, parse_yaml, read_json, read_text
from scopewise.errors import ConfigError, DataError


def refused(parse: Any, text: str) -> str:
    with pytest.raises(DataError) as caught:
        parse(text, "here", DataError)
    sentence = str(caught.value)
    assert sentence.startswith("here")
    assert "\n" not in sentence
    assert len(sentence) < 300
    sentence.encode("utf-8")
    return sentence


BAD_JSON = {
    "empty": "",
    "broken": '{"a": 1',
    "surrogate": '{"a": "\\ud800"}',
    "surrogate in a key": '{"\\udfff": 1}',
    "surrogates the wrong way round": '["\\udc00\\ud800"]',
    "digits": "9" * 5000,
    "digits that Python reads": "9" * 400,
    "levels": "[" * 100_000,
    "levels that Python reads": "[" * 200 + "]" * 200,
    "nan": "[NaN]",
    "infinity": "-Infinity",
    "infinite in effect": "1e999",
    "twice": '{"a": 1, "b": {"c": 1, "c": 1}}',
}
BAD_YAML = {
    "broken": "a: [",
    "nul": "a: \0",
    "escape": "a: \x1b",
    "surrogate": 'a: "\\uD800"',
    "int": "a: !!int x",
    "empty int": "a: !!int ''",
    "bool": "a: !!bool perhaps",
    "float": "a: !!float x",
    "date": "a: 2024-13-45",
    "tagged date": "a: !!timestamp soon",
    "python": "a: !!python/object/apply:os.getcwd []",
    "binary": "a: !!binary aGk=",
    "set": "a: !!set {b}",
    "own tag": "a: !mine 1",
    "recursive": "a: &a [*a]",
    "recursive mapping": "&a {b: *a}",
    "exploding": "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)),
    "levels": "[" * 5000 + "]" * 5000,
    "levels that Python reads": "[" * 100 + "]" * 100,
    "levels by aliases": "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 90)),
    "digits": "a: " + "9" * 400,
    "more digits": "a: " + "9" * 5000,
    "hexadecimal digits": "a: 0x" + "f" * 5000,
    "twice": "a: 1\nb: 2\na: 3\n",
    "twice below": "a: {b: 1, b: 1}",
    "key": "[a]: 1",
    "two documents": "a: 1\n---\na: 2\n",
}


@pytest.mark.parametrize("text", BAD_JSON.values(), ids=BAD_JSON)
def test_bad_json(text: str) -> None:
    refused(parse_json, text)


@pytest.mark.parametrize("text", BAD_YAML.values(), ids=BAD_YAML)
def test_bad_yaml(text: str) -> None:
    refused(parse_yaml, text)


@pytest.mark.parametrize(
    "value",
    [None, 1, -1.5, "é😀", [1, [2, {"a": [None, True]}]], {"": {"a b": "\\ud800 as text"}}, 10**299, [[[[]]]]],
)
def test_what_json_says_is_read(value: Any) -> None:
    for ascii_only in (True, False):  # an emoji is a pair of surrogates where only ASCII is written
        assert parse_json(json.dumps(value, ensure_ascii=ascii_only), "here", DataError) == value


def test_yaml_is_read_as_by_the_library() -> None:
    text = "a: &a {x: 1, y: [0x10, 1.5, yes, null, '1', .nan]}\nb: {<<: *a, x: 2}\nc: {<<: *a, y: {<<: *a, y: 3}}\n"
    ours, theirs = parse_yaml(text, "here", DataError), yaml.safe_load(text)
    assert repr(ours) == repr(theirs)  # NaN equals nothing
    assert ours["b"] == {"x": 2, "y": ours["a"]["y"]}
    assert parse_yaml("", "here", DataError) is None
    assert parse_yaml("a: 2024-02-29", "here", DataError) == {"a": "2024-02-29"}
    assert parse_yaml("a: =", "here", DataError) == {"a": "="}


def test_the_line_is_named() -> None:
    assert refused(parse_yaml, "a: 1\nb: 2\na: 3\n").startswith("here:3: ")
    assert refused(parse_yaml, "a: 1\nb: [\n").startswith("here:3: ")
    assert refused(parse_yaml, "a: 1\nb: !!int x\n").startswith("here:2: ")
    assert refused(parse_yaml, "a: 1\nb: \0\n").startswith("here:2: ")
    assert refused(parse_json, '{"a": 1,\n"b": }\n').startswith("here:2: ")


def test_both_lines_of_a_key_that_stands_twice_are_named() -> None:
    """Keys of objects within, texts that hold braces and quotes, and values that are equal to keys, lead nowhere else."""
    assert "first on line 1" in refused(parse_yaml, "a: 1\nb: 2\na: 3\n")
    assert "first on line 2" in refused(parse_yaml, "b:\n  a: 1\n  c: 2\n  a: 3\na: 1\n")
    text = '{"a": {"b": "{\\"b\\": ["},\n"b": ["a", {"a": 1}],\n"c": "b",\n"\\u0062" : 2}\n'
    assert refused(parse_json, text).startswith("here:4: key 'b' ")
    assert "first on line 2" in refused(parse_json, text)
    assert refused(parse_json, '{"a": 1, "a": 2}').startswith("here: key 'a' ")  # of one line, which the caller names


def test_values_are_not_repeated() -> None:
    """Rows are personal data: a sentence names keys and places."""
    assert "secret" not in refused(parse_json, '{"answer": "secret", "b": NaN}')
    assert "secret" not in refused(parse_json, '{"answer": "secret \\ud800"}')


def test_nan_where_it_is_asked_for() -> None:
    assert math.isnan(parse_json("[NaN]", "here", DataError, nan=True)[0])


def test_text(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes('\ufeff{"a":\r\n"é"}'.encode())
    assert read_text(path, DataError) == '{"a":\n"é"}'
    assert read_json(path, DataError) == {"a": "é"}
    path.write_bytes(b"a\nb\xff")
    with pytest.raises(DataError, match=r"a\.json:2: "):
        read_text(path, DataError)


def test_paths(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in ("none", "file/below", "loop", "x" * 300, "nul\0", "", "surrogate\udc80"):
        with pytest.raises(ConfigError, match=r"data\.path|is a folder"):
            read_text(tmp_path / path, ConfigError, "data.path")
