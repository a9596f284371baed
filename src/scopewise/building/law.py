"""Law tables: which attribute of an instance must go and which may stay, by which article."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from scopewise.data.rows import FORGET, RETAIN
from scopewise.documents import parse_yaml, read_text
from scopewise.errors import ConfigError, DataError
from scopewise.registry import allowed
from scopewise.section import Section, sentence

SHIPPED = Path(str(resources.files(__name__.rpartition(".")[0]))) / "laws"


class Rule(Section):
    """Scope of an attribute, the article that gives it, and why in one sentence."""

    scope: Literal["forget", "retain"]
    article: str
    sentence: str


class Expired(Section):
    """When a work is out of copyright, so that every attribute is kept."""

    article: str
    sentence: str
    year: int
    years_after_death: int = Field(ge=0)
    years_after_publication: int = Field(ge=0)


class LawFile(Section):
    """The keys of a law table."""

    name: str
    title: str
    domain: Literal["privacy", "copyright"]
    extends: str | None = None
    expired: Expired | None = None
    attributes: dict[str, Rule]


@dataclass(frozen=True)
class Law:
    """A law table.

    Attributes:
        name: As `--law` names it.
        title: As it is cited.
        domain: `privacy` (persons) or `copyright` (works).
        rules: Attribute → scope, article and sentence.
        expired: When a work is out of copyright; None if the law has no such rule.
        source: The file.
    """

    name: str
    title: str
    domain: str
    rules: Mapping[str, Rule]
    expired: Expired | None
    source: Path

    def rule(self, attribute: str, where: str, expired: bool = False) -> Rule:
        """Return scope and article of an attribute.

        Raises:
            DataError: the table has no rule for it; the message names the instance by `where`.
        """
        if expired and self.expired is not None:
            return Rule(scope=RETAIN, article=self.expired.article, sentence=self.expired.sentence)
        if attribute not in self.rules:
            raise DataError(
                f"{where}: attribute {attribute!r} has no scope in the law table {self.name}; "
                + allowed(
                    attribute, self.rules, f"rename it, or add it to a table of your own with 'extends: {self.name}'"
                )
            )
        return self.rules[attribute]

    def is_expired(self, published: int | None, died: int | None) -> bool:
        """Return whether a work is out of copyright, by the year of its author's death or, if unknown, of publication."""
        if self.expired is None:
            return False
        if died is not None:
            return died + self.expired.years_after_death < self.expired.year
        return published is not None and published + self.expired.years_after_publication < self.expired.year

    def describe(self) -> dict[str, Any]:
        """Return what the datasheet says of the table."""
        return {
            "name": self.name,
            "title": self.title,
            "domain": self.domain,
            "attributes": {name: rule.model_dump() for name, rule in sorted(self.rules.items())},
            "expired": None if self.expired is None else self.expired.model_dump(),
        }


def shipped_laws() -> list[str]:
    """Return the names of the tables in the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def read_law(name: str) -> Law:
    """Return a law table: one of the package by name, or a YAML file, which may extend another.

    Raises:
        ConfigError: no such table.
        DataError: the file is wrong, such as an attribute without a scope; one sentence.
    """
    return _read(name, ())


def _read(name: str, above: tuple[str, ...]) -> Law:
    path = SHIPPED / f"{name}.yaml" if name in shipped_laws() else Path(name)
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(
            f"--law: {name!r}; not a YAML file of your own, and of the shipped tables {allowed(name, shipped_laws())}"
        )
    record = parse_yaml(read_text(path, DataError, "--law"), str(path), DataError)
    if not isinstance(record, dict):
        raise DataError(f"{path}: {type(record).__name__}; a law table has the keys name, title, domain and attributes")
    for attribute, rule in _items(record.get("attributes")):
        if isinstance(rule, dict) and rule.get("scope") not in (FORGET, RETAIN):
            state = f"scope {rule['scope']!r}" if "scope" in rule else "no scope"
            raise DataError(f"{path}: attribute {attribute!r}: {state}; give it 'scope: {FORGET}' or 'scope: {RETAIN}'")
    try:
        file = LawFile.model_validate(record)
    except ValidationError as error:
        raise DataError(f"{path}: {sentence(error, LawFile)}") from None
    if file.extends is None:
        return Law(file.name, file.title, file.domain, file.attributes, file.expired, path)
    if file.extends in above:
        raise DataError(f"{path}: extends {file.extends!r}, which extends it in turn; remove one of them")
    below = _read(file.extends, (*above, file.extends))
    if below.domain != file.domain:
        raise DataError(f"{path}: domain {file.domain!r}, and {below.name} has {below.domain!r}; they must be the same")
    rules = {**below.rules, **file.attributes}
    return Law(file.name, file.title, file.domain, rules, file.expired or below.expired, path)


def _items(value: object) -> Iterable[tuple[Any, Any]]:
    return value.items() if isinstance(value, dict) else ()


def law_of(laws: Iterable[Law], kind: str, named: str, where: str) -> Law:
    """Return the table for an instance: the one it names, else the first for its kind.

    Raises:
        DataError: it names a table that was not given, or none is for its kind.
    """
    laws = list(laws)
    if named:
        found = next((law for law in laws if law.name == named), None)
        if found is None:
            raise DataError(f"{where}: law {named!r}; {allowed(named, [law.name for law in laws])}; give it by --law")
        return found
    domain = {"person": "privacy", "work": "copyright"}[kind]
    found = next((law for law in laws if law.domain == domain), None)
    if found is None:
        given = ", ".join(law.name for law in laws)
        raise DataError(
            f"{where}: a {kind}, and {given} is for another kind; give a table of domain {domain!r} by --law"
        )
    return found
