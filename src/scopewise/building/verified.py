"""Facts checked against a second source: those that it does not confirm are left out, and listed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from scopewise.building.from_documents import paragraphs
from scopewise.building.instances import Fact, Instance, InstanceFile, LeftOut, cell_values, records_of
from scopewise.building.templates import Wordings
from scopewise.building.values import written
from scopewise.data.crossed import plain
from scopewise.data.rows import RETAIN, SCOPES
from scopewise.documents import read_text
from scopewise.errors import DataError

Confirms = Callable[[Instance, Fact], bool]
_TEXTS = (".txt", ".md")


def verified(given: InstanceFile, sources: Sequence[str], wordings: Mapping[str, Wordings]) -> InstanceFile:
    """Return the instances with the facts that at least one of the sources confirms.

    A file of instances confirms a fact if it has the same value (case and punctuation do not count); a document (`.txt`, `.md`)
    if a paragraph that names the instance has the value. An instance that loses a scope is left out.

    Args:
        given: What to check.
        sources: Files of either kind.
        wordings: As in `read_instances`.

    Raises:
        DataError: a source cannot be read, or no instance is left.
    """
    confirm = [_document(Path(s)) if Path(s).suffix in _TEXTS else _instances(Path(s), wordings) for s in sources]
    kept, facts, left = list[Instance](), list(given.facts_left_out), list(given.instances_left_out)
    for instance in given.instances:
        true = tuple(fact for fact in instance.facts if any(one(instance, fact) for one in confirm))
        facts += [
            LeftOut(instance.name, f"not confirmed by {', '.join(sources)}", fact.attribute)
            for fact in instance.facts
            if fact not in true
        ]
        scopes = {fact.rule.scope for fact in true}
        if missing := [s for s in ((RETAIN,) if instance.expired else SCOPES) if s not in scopes]:
            left.append(LeftOut(instance.name, f"no fact of scope {missing[0]!r} is confirmed"))
        else:
            kept.append(replace(instance, facts=true))
    if not kept:
        raise DataError(
            f"--check-against: {', '.join(sources)}; {left[-1].why} of {len(given.instances)} instances; give another one"
        )
    return replace(given, instances=tuple(kept), facts_left_out=tuple(facts), instances_left_out=tuple(left))


def _instances(path: Path, wordings: Mapping[str, Wordings]) -> Confirms:
    known = dict[str, dict[str, Any]]()
    for where, record in records_of(path)[1]:
        if not isinstance(record, Mapping) or not isinstance(record.get("name"), str):
            raise DataError(
                f"{where}: no instance with a name; a second source is a file of instances, or a text; correct it"
            )
        values = record.get("attributes", record)
        known[plain(record["name"])] = {str(key): value for key, value in values.items()}

    def confirms(instance: Instance, fact: Fact) -> bool:
        value = known.get(plain(instance.name), {}).get(fact.attribute)
        if value is None:
            return False
        kind = wordings[instance.kind].of(fact.attribute).type
        return plain(written(cell_values(value), kind, f"{path} ({instance.name}): {fact.attribute}")) == plain(
            fact.value
        )

    return confirms


def _document(path: Path) -> Confirms:
    texts = [f" {plain(text)} " for _, text in paragraphs(read_text(path, DataError, "--check-against"))]

    def confirms(instance: Instance, fact: Fact) -> bool:
        names = [f" {plain(name)} " for name in (instance.name, *instance.aliases)]
        value = plain(fact.value)
        value = value.removeprefix("on ").removeprefix("in ") if fact.attribute == "born" else value
        return any(f" {value} " in text and any(name in text for name in names) for text in texts)

    return confirms
