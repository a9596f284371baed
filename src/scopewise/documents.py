"""The only reader of text, JSON and YAML: it turns every fault of a file into one sentence, in the caller's error class.

The libraries' own readers accept duplicate keys (the last one wins) and lone surrogates, which cannot be written to a file.
They raise `RecursionError` on deep nesting and `ValueError` on long integers and impossible dates, and expand aliases
without limit.
"""

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from scopewise.errors import UserError

_DEPTH = 64
_DIGITS = 300  # the largest power of ten that a float still holds is 308
_NODES = 100_000  # of a YAML document with every alias written out
_UNZIPPED = 1 << 30  # bytes; a few kilobytes of gzip can hold any number of them
_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}"
    for name in ("str", "int", "float", "bool", "null", "timestamp", "seq", "map", "merge", "value")
)


class _RefusedError(Exception):
    """A fault of a document: `what; what to do`. Its location is added before the user sees it."""


class _TwiceError(Exception):
    """A key occurs twice in one object."""


def read_text(path: str | Path, error: type[UserError], setting: str | None = None) -> str:
    """Return a file's text, without the byte order mark that some editors write.

    Args:
        path: The file; one that ends in `.gz` is unzipped.
        error: Class of the error to raise if it cannot be read.
        setting: The setting that names the file, for the message.
    """
    check = f"check `{setting}`" if setting else "check the path"
    try:
        content = _unzipped(Path(path), error) if Path(path).suffix == ".gz" else Path(path).read_bytes()
    except FileNotFoundError:
        raise error(f"{path}: no such file; {check}") from None
    except IsADirectoryError:
        other = ", or choose another `data.benchmark`" if setting == "data.path" else ""
        raise error(f"{path}: is a folder; name a file{other}") from None
    except OSError as failure:
        raise error(f"{path}: cannot be read ({failure.strerror}); {check}") from None
    except ValueError:  # a NUL in the path
        raise error(f"{str(path)!r}: not a path; {check}") from None
    try:
        return content.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as failure:
        line = content[: failure.start].count(b"\n") + 1
        raise error(f"{path}:{line}: byte {failure.start} is not UTF-8; save the file as UTF-8") from None


def _unzipped(path: Path, error: type[UserError]) -> bytes:
    try:
        with gzip.open(path) as file:
            content = file.read(_UNZIPPED + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise error(f"{path}: not a complete gzip file; zip it again, or give the unzipped file") from None
    if len(content) > _UNZIPPED:
        raise error(f"{path}: more than {_UNZIPPED >> 30} GiB when unzipped; give the rows in smaller files")
    return content


def read_json(path: str | Path, error: type[UserError], setting: str | None = None, *, nan: bool = False) -> Any:
    """Return the decoded JSON of a file; see `parse_json`."""
    return parse_json(read_text(path, error, setting), str(path), error, nan=nan)


def parse_json(text: str, where: str, error: type[UserError], *, nan: bool = False) -> Any:
    """Return decoded JSON.

    Args:
        text: What to decode.
        where: File, or file and line, for the sentence.
        error: Class of what is raised.
        nan: Take `NaN` and `Infinity`, which JSON does not have, for floats.

    Raises:
        UserError: of the class `error`: broken, a key twice, a number that is not finite or has more than 300 digits,
            more than 64 levels, or half of a surrogate pair.
    """
    try:
        value = json.loads(
            text,
            object_pairs_hook=_mapping,
            parse_int=_integer,
            parse_float=float if nan else _finite,
            parse_constant=float if nan else _finite,
        )
        _check_depth(value)
        if "\\u" in text and not is_unicode(json.dumps(value, ensure_ascii=False)):
            raise _RefusedError("half of a surrogate pair (\\ud800 to \\udfff); write the character itself")
    except json.JSONDecodeError as failure:
        place = f"{where}:{failure.lineno}" if "\n" in text.strip() else where
        raise error(f"{place}: broken JSON at column {failure.colno} ({failure.msg}); correct this line") from None
    except RecursionError:
        raise error(f"{where}: nested in more than {_DEPTH} levels; make it flatter") from None
    except _TwiceError as refused:
        place, what = where, str(refused)
        if "\n" in text.strip():
            key, first, second = _key_twice(text)
            place, what = f"{where}:{second}", f"key {_shown(key)} a second time in one object, first on line {first}"
        raise error(f"{place}: {what}; keep one") from None
    except _RefusedError as refused:
        raise error(f"{where}: {refused}") from None
    return value


def parse_yaml(text: str, where: str, error: type[UserError]) -> Any:
    """Return decoded YAML of plain values: texts, numbers, booleans, nulls, lists and mappings.

    A date is returned as the text that was written, since no setting is a date.

    Args:
        text: What to decode.
        where: File or option, for the sentence.
        error: Class of what is raised.

    Raises:
        UserError: of the class `error`: broken, a key twice, a tag other than of the plain values, a value that its tag
            does not allow, a number of more than 300 digits, more than 64 levels, a recursive alias, aliases that expand to
            more than 100,000 values, or half of a surrogate pair.
    """

    def at(line: int) -> str:
        return f"{where}:{line + 1}" if "\n" in text else where

    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        loader.measure(node)
        return loader.construct_document(node)
    except _LineError as refused:
        raise error(f"{at(refused.line)}: {refused}") from None
    except yaml.reader.ReaderError as failure:
        line = text[: failure.position].count("\n")
        raise error(f"{at(line)}: a character that YAML does not allow; remove it") from None
    except yaml.YAMLError as failure:
        mark = getattr(failure, "problem_mark", None)
        line = 0 if mark is None else mark.line
        raise error(f"{at(line)}: broken YAML ({getattr(failure, 'problem', None)}); correct this line") from None
    except RecursionError:
        raise error(f"{where}: nested in more than {_DEPTH} levels; make it flatter") from None


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for i, key in enumerate(keys) if key in keys[:i])
        raise _TwiceError(f"key {_shown(twice)} twice in one object")
    return found


def _key_twice(text: str) -> tuple[str, int, int]:
    """Return the first key that occurs twice in one object, and its two lines; the JSON must be valid up to there."""
    inside: list[dict[str, int]] = []  # the objects and lists that are open: line of each key
    for token in re.finditer(r'("(?:[^"\\]|\\.)*")(\s*:)?|[{}\[\]]', text):
        if token.group() in ("{", "["):
            inside.append({})
        elif token.group() in ("}", "]"):
            inside.pop()
        elif token.group(2) is not None:
            key, line = json.loads(token.group(1)), text.count("\n", 0, token.start()) + 1
            if key in inside[-1]:
                return key, inside[-1][key], line
            inside[-1][key] = line
    raise AssertionError("no key stands twice")


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise _RefusedError(
            f"an integer of {len(digits)} digits; at most {_DIGITS} are read; shorten it, or make it text"
        )
    return int(digits)


def _finite(number: str) -> float:
    if not math.isfinite(value := float(number)):
        raise _RefusedError(f"the number {number[:20]}; JSON has finite numbers only; use null where there is no value")
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(_DEPTH):
        level = [inner for outer in level if isinstance(outer, dict | list) for inner in _values(outer)]
        if not level:
            return
    raise RecursionError


def _values(outer: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return outer.values() if isinstance(outer, dict) else outer


def is_unicode(text: str) -> bool:
    """Return whether a text can be written as UTF-8, so whether it contains no lone surrogate."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _shown(key: Any) -> str:
    text = repr(key)
    return text if len(text) <= 60 else f"{text[:57]}…"


class _LineError(Exception):
    """A fault in a line (counted from 0) of a YAML document."""

    def __init__(self, node: yaml.Node, what: str) -> None:
        super().__init__(what)
        self.line = node.start_mark.line


class _Loader(yaml.SafeLoader):
    """The safe loader, restricted to plain values, without duplicate keys and with limited aliases."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._measured: dict[int, tuple[int, int]] = {}
        self._open: set[int] = set()

    def measure(self, node: yaml.Node) -> tuple[int, int]:
        """Return (values, levels) under a node with its aliases written out. Raises _LineError as `parse_yaml` says."""
        if id(node) in self._open:
            raise _LineError(node, "an alias within what it stands for; write the value out")
        if id(node) in self._measured:
            return self._measured[id(node)]
        if node.tag not in _TAGS:
            raise _LineError(node, f"the tag {_shown(node.tag)}; only plain values are read; remove the tag")
        self._open.add(id(node))
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            self._check_keys(node)
            children = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        parts = [self.measure(child) for child in children]
        size, depth = 1 + sum(s for s, _ in parts), 1 + max((d for _, d in parts), default=0)
        if depth > _DEPTH:
            raise _LineError(node, f"nested in more than {_DEPTH} levels; make it flatter")
        if size > _NODES:
            raise _LineError(node, f"more than {_NODES} values with its aliases written out; use fewer")
        self._open.discard(id(node))
        self._measured[id(node)] = size, depth
        return size, depth

    def _check_keys(self, node: yaml.MappingNode) -> None:
        # Check before anything is constructed, since merging adds keys beside those that override them.
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _LineError(key_node, "a key that is a list or a mapping; a key is a text")
            key = "<<" if key_node.tag.endswith(":merge") else self.construct_object(key_node)
            if key in seen:
                raise _LineError(key_node, f"key {_shown(key)} a second time, first on line {seen[key]}; keep one")
            seen[key] = key_node.start_mark.line + 1

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return the value of a node."""
        try:
            value = super().construct_object(node, deep)
        except (ValueError, KeyError, IndexError, AttributeError, TypeError, OverflowError):
            raise _LineError(node, f"not a valid {node.tag.rpartition(':')[2]}; correct or quote this value") from None
        if isinstance(value, int) and abs(value) >= 10**_DIGITS:
            raise _LineError(node, f"an integer of more than {_DIGITS} digits; shorten it, or quote it")
        if isinstance(value, str) and not is_unicode(value):
            raise _LineError(node, "half of a surrogate pair (\\ud800 to \\udfff); write the character itself")
        return value

    def construct_date_as_text(self, node: Any) -> Any:
        """Return a date as it was written. Raises ValueError if there is no such date."""
        self.construct_yaml_timestamp(node)
        return node.value


_Loader.yaml_constructors = {
    **yaml.SafeLoader.yaml_constructors,
    "tag:yaml.org,2002:timestamp": _Loader.construct_date_as_text,
    "tag:yaml.org,2002:value": _Loader.construct_yaml_str,  # a lone `=`
}
