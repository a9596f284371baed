"""Settings of the classes in the tables: fields of a frozen dataclass, checked against their annotations."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt

from scopewise import registry
from scopewise.errors import ConfigError


def make(kind: str, name: str, where: str, arguments: Mapping[str, Any]) -> Any:
    """Build a method, localizer, metric or attack by name.

    Args:
        kind: Its table, such as `methods`.
        name: Its key in the table, `package.module:Class`, or the name of an entry point.
        where: Name of the arguments in error messages, such as `unlearn.method_args`.
        arguments: Fields of the class. A range is written `Annotated[float, Interval(gt=0)]`, as in `annotated_types`.

    Raises:
        ConfigError: unknown name or argument (with the nearest one), or a value that does not fit.
    """
    cls = registry.lookup(kind, name)
    types_of = get_type_hints(cls, include_extras=True)
    known = knobs(cls)
    checked = {}
    for key, value in arguments.items():
        if key not in known:
            advice = registry.allowed(key, known) if known else "it takes none; remove it"
            raise ConfigError(f"{where}: unknown {key!r}; of {registry.canonical(kind, name)} {advice}")
        checked[key] = _fitting(value, types_of[key], f"{where}.{key}")
    try:
        return cls(**checked)
    except ValueError as error:
        at = "." if str(error).partition(":")[0] in known else ": "  # of one setting, or of several together
        raise ConfigError(f"{where}{at}{error}") from None


def knobs(cls: type) -> tuple[str, ...]:
    """Return the names of a class's own settings."""
    return tuple(field.name for field in fields(cls) if field.init)


def _fitting(value: Any, annotation: Any, where: str) -> Any:
    """Return a value converted to its annotated type. Raises ConfigError if it does not fit."""
    ranges: list[Any] = []
    if get_origin(annotation) is Annotated:
        annotation, *metadata = get_args(annotation)
        for item in metadata:
            ranges += list(item) if isinstance(item, GroupedMetadata) else [item]
    if get_origin(annotation) in (Union, types.UnionType):
        if value is None and type(None) in get_args(annotation):
            return None
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    if get_origin(annotation) is tuple:  # tuple[X, ...]
        if not isinstance(value, list | tuple) or not value:
            raise ConfigError(f"{where}: {value!r}; must be a list of one or more")
        inner = get_args(annotation)[0]
        return tuple(_fitting(item, inner, f"{where}[{i}]") for i, item in enumerate(value))
    if get_origin(annotation) is Literal:
        if value not in get_args(annotation):
            raise ConfigError(f"{where}: {value!r}; {registry.allowed(str(value), map(str, get_args(annotation)))}")
        return value
    if annotation in (int, float) and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ConfigError(f"{where}: {value!r}; must be a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}: {value!r}; must be finite")
    if annotation in (str, bool) and not isinstance(value, annotation):
        raise ConfigError(f"{where}: {value!r}; must be {'a text' if annotation is str else 'true or false'}")
    if annotation is int and value != int(value):
        raise ConfigError(f"{where}: {value!r}; must be a whole number")
    for bound in ranges:
        if isinstance(bound, Ge) and not value >= bound.ge:
            raise ConfigError(f"{where}: {value!r}; must be {bound.ge} or more")
        if isinstance(bound, Gt) and not value > bound.gt:
            raise ConfigError(f"{where}: {value!r}; must be above {bound.gt}")
        if isinstance(bound, Le) and not value <= bound.le:
            raise ConfigError(f"{where}: {value!r}; must be {bound.le} or less")
        if isinstance(bound, Lt) and not value < bound.lt:
            raise ConfigError(f"{where}: {value!r}; must be below {bound.lt}")
    return annotation(value) if annotation in (int, float) else value
