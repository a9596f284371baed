"""Values that a JSON schema forbids, found by reading the schema: of each field a wrong kind, a broken bound, a wrong key."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

Path = tuple[str | int, ...]

HUGE = 10**5000 - 1
"""An integer of more digits than Python reads."""

LONE = "lone \ud800 surrogate"
"""Text that no encoding has."""

# One value of each kind; a field forbids the kinds that its schema does not name.
_OF_KIND: Mapping[str, tuple[Any, ...]] = {
    "string": ("nonsense", ""),
    "integer": (7, -3),
    "number": (0.37,),
    "boolean": (True,),
    "array": ([], [[1]]),
    "object": ({}, {"key": 1}),
    "null": (None,),
}


@dataclass(frozen=True)
class Bad:
    """A value that a schema forbids at a place.

    Attributes:
        path: Keys and indices from the root.
        value: What to put there; `MISSING` takes it away.
        why: What the schema says.
    """

    path: Path
    value: Any
    why: str


MISSING = object()


def bad_values(schema: Mapping[str, Any], example: Any = None) -> Iterator[Bad]:
    """Return what a schema forbids, of every field in it.

    Args:
        schema: As `BaseModel.model_json_schema` gives it.
        example: A document that the schema allows: keys that only data decide (of mappings, and indices) are taken from it.
    """
    yield from _forbidden(schema, schema, (), example)


def _forbidden(schema: Mapping[str, Any], root: Mapping[str, Any], path: Path, example: Any) -> Iterator[Bad]:
    choices = [_resolved(choice, root) for choice in schema.get("anyOf", [schema])]
    choices = [inner for choice in choices for inner in (choice.get("anyOf") or [choice])]
    choices = [_resolved(choice, root) for choice in choices]
    kinds = {kind for choice in choices for kind in _kinds(choice)}
    if path:
        yield from (Bad(path, value, f"is no {' or '.join(sorted(kinds))}") for value in _other_kinds(kinds))
    fitting = [choice for choice in choices if "null" not in _kinds(choice)]
    if len(fitting) != 1:
        return
    (one,) = fitting
    yield from _out_of_bounds(one, path)
    if "object" in _kinds(one):
        yield from _of_object(one, root, path, example)
    elif "array" in _kinds(one):
        yield from _of_array(one, root, path, example)


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema


def _kinds(schema: Mapping[str, Any]) -> set[str]:
    if "type" in schema:
        return {schema["type"]} | ({"integer"} if schema["type"] == "number" else set())
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    names = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
    return {names[type(value)] for value in values} or set(_OF_KIND)


def _other_kinds(kinds: set[str]) -> Iterator[Any]:
    for kind, values in _OF_KIND.items():
        # "7" and 1 are read as a number and as yes where these are wanted: what everybody means is no fault.
        if kind in kinds or (kind == "integer" and "boolean" in kinds):
            continue
        if kind == "number" and "integer" in kinds:
            yield from (0.37, math.nan, math.inf)
        else:
            yield from values
    if "number" in kinds or "integer" in kinds:
        yield from (math.nan, math.inf, -math.inf, HUGE)
    if "string" in kinds:
        yield LONE


def _out_of_bounds(schema: Mapping[str, Any], path: Path) -> Iterator[Bad]:
    if "enum" in schema:
        yield from (Bad(path, f"{value}x", "is none of the values allowed") for value in schema["enum"])
    if "const" in schema:
        yield from (Bad(path, value, f"is not {schema['const']!r}") for value in (f"{schema['const']}9", "other"))
    step = 1 if schema.get("type") == "integer" else 0.5
    for key, values in {
        "minimum": lambda bound: (bound - step, -1e6 if step == 0.5 else -(10**6)),
        "exclusiveMinimum": lambda bound: (bound, bound - step),
        "maximum": lambda bound: (bound + step, 10**6),
        "exclusiveMaximum": lambda bound: (bound, bound + step),
    }.items():
        if key in schema:
            yield from (Bad(path, value, f"passes {key} {schema[key]}") for value in values(schema[key]))
    if schema.get("minItems", 0) > 0:
        yield Bad(path, [], f"has fewer than {schema['minItems']} items")


def _of_object(schema: Mapping[str, Any], root: Mapping[str, Any], path: Path, example: Any) -> Iterator[Bad]:
    properties = schema.get("properties", {})
    given = example if isinstance(example, Mapping) else {}
    if schema.get("additionalProperties") is False:
        for key in properties:
            yield Bad((*path, misspelt(key)), 1, "is no key")
        yield Bad((*path, "\x1b[31mkey"), 1, "is no key")
    yield from (Bad((*path, key), MISSING, "is required") for key in schema.get("required", []))
    for key, inner in properties.items():
        yield from _forbidden(inner, root, (*path, key), given.get(key))
    more = schema.get("additionalProperties")
    if isinstance(more, Mapping):
        for key in list(given)[:2] or ["key"]:
            yield from _forbidden(more, root, (*path, key), given.get(key))


def _of_array(schema: Mapping[str, Any], root: Mapping[str, Any], path: Path, example: Any) -> Iterator[Bad]:
    given = example if isinstance(example, list | tuple) and example else None
    if "prefixItems" in schema:
        count = len(schema["prefixItems"])
        yield from (Bad(path, [0.5] * n, f"has not {count} items") for n in (count - 1, count + 1))
    elif "items" in schema:
        inner: Any = given[0] if given else None
        for bad in _forbidden(schema["items"], root, (*path, 0), inner):
            if given is not None:
                yield bad
            elif len(bad.path) == len(path) + 1 and bad.value is not MISSING:
                yield Bad(path, [bad.value], bad.why)


def misspelt(name: str) -> str:
    """Return a name with two letters in the other order and one more: none that a table knows."""
    middle = len(name) // 2
    return name[: middle - 1] + name[middle - 1 : middle + 1][::-1] + name[middle + 1 :] + "q"


def with_bad(document: Any, bad: Bad) -> Any:
    """Return a document with a bad value in it; folders on the way that it does not have are made."""
    changed = copy.deepcopy(document)
    inner = changed
    for key, following in zip(bad.path, bad.path[1:], strict=False):
        if isinstance(inner, dict):
            inner.setdefault(key, [] if isinstance(following, int) else {})
            if inner[key] is None:
                inner[key] = {}
        inner = inner[key]
    last = bad.path[-1]
    if bad.value is MISSING:
        inner.pop(last, None)
    else:
        inner[last] = bad.value
    return changed


def places(document: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Return every value of a document with its path."""
    if path:
        yield path, document
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        yield from places(value, (*path, key))


def some_place(document: Any, random: Random) -> Path:
    """Return the path of one value of a document."""
    return random.choice([path for path, _ in places(document)])
