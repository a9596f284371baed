"""Instances: persons and works with typed attributes, from YAML, JSON, JSON lines or CSV."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scopewise.building.law import Law, Rule, law_of
from scopewise.building.templates import Wordings
from scopewise.building.values import is_safe, written
from scopewise.data.crossed import plain
from scopewise.data.rows import SCOPES, BrokenLine, each_row
from scopewise.data.tables import read_records
from scopewise.documents import parse_yaml, read_text
from scopewise.errors import DataError

PERSON, WORK = "person", "work"
_KINDS = {"privacy": PERSON, "copyright": WORK}
_OWN = ("name", "kind", "law", "aliases", "author_died", "attributes", "sources")
"""Keys of an instance that are no attributes."""


@dataclass(frozen=True)
class Span:
    """Where a fact was found: a document, and the first and the last character (exclusive)."""

    document: str
    start: int
    end: int


@dataclass(frozen=True)
class Fact:
    """One attribute of an instance.

    Attributes:
        attribute: Its name.
        value: As it is written in a sentence.
        rule: Scope and article.
        source: Where it was found in documents; None if it was given.
    """

    attribute: str
    value: str
    rule: Rule
    source: Span | None = None


@dataclass(frozen=True)
class Instance:
    """A person or a work with its facts.

    Attributes:
        name: The name, unique in a benchmark.
        kind: `person` or `work`.
        law: The law table of its scopes.
        facts: In the order of the file.
        aliases: Other names, as the file gives them.
        expired: Whether the work is out of copyright, so that all is kept.
        origin: File and row.
    """

    name: str
    kind: str
    law: Law
    facts: tuple[Fact, ...]
    aliases: tuple[str, ...] = ()
    expired: bool = False
    origin: str = field(default="", compare=False)


@dataclass(frozen=True)
class LeftOut:
    """An instance that is not in the benchmark, or one of its facts, and why.

    Attributes:
        instance: Its name.
        why: The reason.
        attribute: Of the fact; empty for the whole instance.
        values: If sources give different values: each value and its place.
    """

    instance: str
    why: str
    attribute: str = ""
    values: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class InstanceFile:
    """Instances, the licence under which a file gives them (empty if it says nothing), and what could not be verified."""

    instances: tuple[Instance, ...]
    licence: str = ""
    facts_left_out: tuple[LeftOut, ...] = ()
    instances_left_out: tuple[LeftOut, ...] = ()


def read_instances(path: str | Path, laws: Sequence[Law], wordings: Mapping[str, Wordings]) -> InstanceFile:
    """Return the instances of a file, with the scopes of their attributes.

    Args:
        path: YAML (a list, or `licence` and `instances`), JSON, JSON lines or CSV (a column per attribute).
        laws: Law tables; the first for persons and the first for works apply, if an instance names none.
        wordings: Of each kind; they have the types of attributes.

    Raises:
        DataError: the file is wrong, an attribute has no scope, an instance has one scope only, or two have the same name.
    """
    licence, records = records_of(Path(path))
    if not records:
        raise DataError(f"{path}: no instance; give at least one with a name and attributes")
    instances = each_row(records, lambda where, record: make_instance(where, record, laws, wordings))
    return InstanceFile(tuple(with_unique_names(instances)), licence)


def records_of(path: Path) -> tuple[str, list[tuple[str, object]]]:
    """Return the licence of a file and its records, each with its place. Raises DataError if it cannot be read."""
    if path.suffix not in (".yaml", ".yml"):
        records = read_records(path, "INSTANCES")
        first = records[0][1] if len(records) == 1 else None
        if not isinstance(first, Mapping) or "instances" not in first:
            return "", _listed_cells(records) if {".csv", ".tsv"} & {*path.suffixes[-2:]} else records
        content: object = first
    else:
        content = parse_yaml(read_text(path, DataError), str(path), DataError)
    licence = ""
    if isinstance(content, Mapping) and "instances" in content:
        if unknown := content.keys() - {"licence", "instances"}:
            raise DataError(
                f"{path}: key {sorted(map(str, unknown))[0]!r}; beside 'instances' there is 'licence' only; remove it"
            )
        licence, content = str(content.get("licence") or ""), content["instances"]
    if not isinstance(content, list):
        raise DataError(f"{path}: {type(content).__name__}; give a list of instances, each with a name and attributes")
    return licence, [(f"{path}:instance {i}", record) for i, record in enumerate(content, 1)]


def make_instance(
    where: str,
    record: object,
    laws: Sequence[Law],
    wordings: Mapping[str, Wordings],
    spans: Mapping[str, Span] | None = None,
) -> Instance:
    """Return an instance of a decoded object; DataError as `read_instances`.

    Args:
        where: File and row.
        record: The object; attributes are under `attributes`, or beside the name.
        laws: As in `read_instances`.
        wordings: As in `read_instances`.
        spans: Attribute → where it was found in documents.
    """
    if isinstance(record, BrokenLine):
        raise record.error
    if not isinstance(record, Mapping):
        raise DataError(f"{where}: {type(record).__name__}; an instance is an object with a name and attributes")
    named = next((str(key) for key in record if str(key).casefold() == "name"), "name")
    if named != "name" and "name" not in record:
        raise DataError(f"{where}: column {named!r}; write it 'name', and those of attributes as in the law table")
    name = _text(record.get("name"), where, "name")
    where = f"{where} ({name[:60]})"
    kind = str(record.get("kind") or _KINDS[laws[0].domain])
    if kind not in (PERSON, WORK):
        raise DataError(f"{where}: kind {kind!r}; an instance is a {PERSON} or a {WORK}; correct it")
    law = law_of(laws, kind, str(record.get("law") or ""), where)
    if _KINDS[law.domain] != kind:
        raise DataError(f"{where}: a {kind}, and the law {law.name} is of domain {law.domain}; name another")
    given = record["attributes"] if "attributes" in record else {k: v for k, v in record.items() if k not in _OWN}
    if not isinstance(given, Mapping):
        raise DataError(f"{where}: attributes is {type(given).__name__}; give a mapping of attributes to values")
    if "attributes" in record and (unknown := [str(key) for key in record if key not in _OWN]):
        raise DataError(f"{where}: key {unknown[0]!r}; beside 'attributes' there are {', '.join(_OWN)}; move it")
    expired = law.is_expired(_year(given.get("year")), _year(record.get("author_died")))
    facts = []
    for attribute, value in given.items():
        attribute, place = str(attribute), f"{where}: {attribute}"
        if value is None:
            continue
        rule = law.rule(attribute, where, expired)
        text = written(value, wordings[kind].of(attribute).type, place)
        facts.append(Fact(attribute, text, rule, (spans or {}).get(attribute)))
    _check_scopes(facts, law, expired, where)
    return Instance(name, kind, law, tuple(facts), tuple(aliases_of(record.get("aliases"), where)), expired, where)


def with_unique_names(instances: Sequence[Instance]) -> Iterator[Instance]:
    """Yield the instances; DataError if two have the same name (case and punctuation do not count)."""
    seen: dict[str, Instance] = {}
    for instance in instances:
        for name in {plain(instance.name), *map(plain, instance.aliases)}:
            first = seen.setdefault(name, instance)
            if first is not instance:
                raise DataError(
                    f"{instance.origin}: the name {instance.name!r} or an alias of it is also that of {first.origin}; a "
                    "question must be about one instance; give each its own name, or merge the two"
                )
        yield instance


def _check_scopes(facts: Sequence[Fact], law: Law, expired: bool, where: str) -> None:
    scopes = {fact.rule.scope for fact in facts}
    if expired and facts:
        return
    for scope in SCOPES:
        if scope not in scopes:
            names = ", ".join(sorted(name for name, rule in law.rules.items() if rule.scope == scope))
            raise DataError(
                f"{where}: no attribute of scope {scope!r} by {law.name}; every instance needs both scopes; add one of: {names}"
            )


def aliases_of(value: object, where: str) -> list[str]:
    """Return the names of a record's `aliases`: a list, or a text with semicolons. Raises DataError for anything else."""
    value = [part.strip() for part in value.split(";")] if isinstance(value, str) else value or []
    if not isinstance(value, list):
        raise DataError(f"{where}: aliases is {type(value).__name__}; give a list of names")
    return [_text(name, where, "aliases") for name in value]


def _text(value: object, where: str, key: str) -> str:
    if not isinstance(value, str) or not value.strip():
        what = "missing or empty" if value is None or isinstance(value, str) else type(value).__name__
        raise DataError(f"{where}: {key} is {what}; it must be a text; give it")
    name = " ".join(value.split())
    if not is_safe(name) or len(name) > 200:
        raise DataError(f"{where}: {key} {name[:60]!r} has an invisible character or is too long; write the plain name")
    return name


def _listed_cells(records: Sequence[tuple[str, object]]) -> list[tuple[str, object]]:
    """Return the records of a table, whose cells cannot hold lists: a cell with semicolons is the list of what they part."""

    def value(key: object, cell: object) -> object:
        several = isinstance(cell, str) and ";" in cell and str(key).casefold() != "name"
        return [part.strip() for part in str(cell).split(";")] if several else cell

    return [
        (where, {key: value(key, cell) for key, cell in record.items()} if isinstance(record, Mapping) else record)
        for where, record in records
    ]


def _year(value: object) -> int | None:
    found = re.search(r"\b(\d{3,4})\b", str(value)) if isinstance(value, str | int) else None
    return int(found[1]) if found else None
