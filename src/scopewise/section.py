"""Rules for every section of the run file: which values are refused, and the error messages."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from scopewise.errors import ConfigError
from scopewise.registry import allowed


class Section(BaseModel):
    """Base of the sections: immutable, no unknown keys, finite numbers only, and booleans are not numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    REFUSED: ClassVar[Mapping[str, str]] = {}
    """Keys that users may expect, and why they are refused."""

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: Any, info: Any) -> Any:
        annotation = cls.model_fields[str(info.field_name)].annotation
        if not _takes_switches(annotation) and _holds_switch(value):
            raise ValueError("true and false are not allowed here; write a number or a text")
        is_section = isinstance(annotation, type) and issubclass(annotation, Section)  # a section checks its own fields
        if not is_section and (found := _unfit(value, free=info.field_name in _FREE_TEXT)) is not None:
            raise ValueError(found)
        return value


def _takes_switches(annotation: Any) -> bool:
    """Return whether a value of this type may contain booleans; sections check their own fields."""
    if annotation in (bool, Any) or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return True
    return any(_takes_switches(inner) for inner in get_args(annotation))


def _holds_switch(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_switch, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds_switch, value))
    return isinstance(value, bool)


_FREE_TEXT = frozenset({"prompt", "system", "stop", "setup", "parts"})
"""Settings that may contain line breaks and tabs; all others are names, paths and patterns."""


def _unfit(value: Any, free: bool) -> str | None:
    """Return what is wrong with a value or a nested value, by rules for all settings; None if it is fine."""
    if isinstance(value, Mapping):
        return next((w for pair in value.items() for v in pair if (w := _unfit(v, free)) is not None), None)
    if isinstance(value, list | tuple):
        return next((w for v in value if (w := _unfit(v, free)) is not None), None)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return "an integer of more than 64 bits; give a smaller one"
    if isinstance(value, str) and any(
        unicodedata.category(c) in ("Cc", "Cs") and not (free and c in "\n\r\t") for c in value
    ):
        return "a control character in it; remove it"
    return None


SectionType = TypeVar("SectionType", bound=Section)


def make_section(kind: type[SectionType], values: Mapping[str, Any], where: str) -> SectionType:
    """Return a section with settings given in Python. Raises ConfigError with the first error.

    Args:
        kind: Its class.
        values: The settings.
        where: Name of the section in the message.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(sentence(error, kind, where)) from None


def sentence(error: ValidationError, section: type[Section], *inside: str) -> str:
    """Return an error message about the first value that pydantic refuses, with its key under `inside`."""
    first = error.errors()[0]
    path = ".".join((*inside, *map(str, first["loc"])))
    if first["type"] == "extra_forbidden":
        inner, key = _section_at(section, first["loc"][:-1]), str(first["loc"][-1])
        if (why := getattr(inner, "REFUSED", {}).get(key)) is not None:
            return f"{path}: not a setting; {why}"
        return f"unknown key {path!r}; {allowed(key, getattr(inner, 'model_fields', {}), 'remove or rename it')}"
    if first["type"] == "missing":
        return f"{path}: missing; give it a value"
    message = f"{first['msg'][0].lower()}{first['msg'][1:]}".removeprefix("value error, ")
    if first["type"] == "literal_error":
        message = allowed(shown(first["input"]), re.findall(r"'([^']*)'", first["ctx"]["expected"]))
    elif first["type"] == "tuple_type":
        message = f"a list, for example [{str(first['input'])[:60]}]"
    elif first["type"] in ("model_type", "dict_type"):
        message = f"a mapping; set one of its keys, as {path}.KEY"
    elif first["type"] == "finite_number":
        message = "a finite number"
    return f"{path}: {shown(first['input'])}; {message}"


def _section_at(section: Any, loc: Sequence[Any]) -> Any:
    """Return the section at a path of keys, also through mappings and tuples of sections, and where it is optional."""
    for part in loc:
        if part in getattr(section, "model_fields", {}):
            section = section.model_fields[part].annotation
            section = get_args(section)[0] if type(None) in get_args(section) else section
        else:
            section = next((inner for inner in reversed(get_args(section)) if inner is not ...), section)
    return section


def shown(value: Any) -> str:
    """Return a value for a message: escaped, on one line, at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
