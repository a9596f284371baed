"""Facts checked against a second source: those that it does not confirm are left out, and listed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from scopewise.building.from_documents import TEXTS, paragraphs, text_files
from scopewise.building.instances import Fact, Instance, InstanceFile, LeftOut, aliases_of, records_of
from scopewise.building.same import same_value, says_value
from scopewise.building.templates import Wordings
from scopewise.building.values import written
from scopewise.data.crossed import plain
from scopewise.data.rows import RETAIN, SCOPES
from scopewise.documents import read_text
from scopewise.errors import DataError

Said = tuple[bool, tuple[tuple[str, str], ...]]
"""Whether a source confirms a fact; and if not, the other value that it gives, with its place."""
Confirms = Callable[[Instance, Fact], Said]


def verified(given: InstanceFile, sources: Sequence[str], wordings: Mapping[str, Wordings]) -> InstanceFile:
    """Return the instances with the facts that at least one of the sources confirms.

    A file of instances confirms a fact if it has the same value (`same_value`) of an instance with the same name or alias; a
    document (`.txt`, `.md`) if a paragraph that names the instance has the value. An instance that loses a scope is left out.

    Args:
        given: What to check.
        sources: Files of either kind, or folders of documents.
        wordings: As in `read_instances`.

    Raises:
        DataError: a source cannot be read, or no instance is left.
    """
    files = [file for source in sources for file in _files(Path(source))]
    confirm = [_document(file, wordings) if file.suffix in TEXTS else _instances(file, wordings) for file in files]
    kept, facts, left = list[Instance](), list(given.facts_left_out), list(given.instances_left_out)
    for instance in given.instances:
        true = list[Fact]()
        for fact in instance.facts:
            said = [one(instance, fact) for one in confirm]
            if any(confirmed for confirmed, _ in said):
                true.append(fact)
                continue
            others = tuple(dict.fromkeys(other for _, found in said for other in found))
            why = f"not confirmed by {', '.join(sources)}" + (f", which say {others[0][0]!r}" if others else "")
            values = ((fact.value, _place(instance, fact)), *others) if others else ()
            facts.append(LeftOut(instance.name, why, fact.attribute, values))
        scopes = {fact.rule.scope for fact in true}
        if missing := [s for s in ((RETAIN,) if instance.expired else SCOPES) if s not in scopes]:
            left.append(LeftOut(instance.name, f"no fact of scope {missing[0]!r} is confirmed"))
        else:
            kept.append(replace(instance, facts=tuple(true)))
    if not kept:
        raise DataError(
            f"--check-against: {', '.join(sources)}; {left[-1].why} of {len(given.instances)} instances; give another one"
        )
    return replace(given, instances=tuple(kept), facts_left_out=tuple(facts), instances_left_out=tuple(left))


def _files(source: Path) -> list[Path]:
    """Return the documents of a folder that has some; else the source itself, which may be a folder that `datasets` saved."""
    holds_texts = source.is_dir() and any(file.suffix in TEXTS for file in source.iterdir())
    return text_files([str(source)]) if holds_texts else [source]


def _place(instance: Instance, fact: Fact) -> str:
    span = fact.source
    return f"{span.document}:{span.start}-{span.end}" if span else instance.origin


def _instances(path: Path, wordings: Mapping[str, Wordings]) -> Confirms:
    known = dict[str, tuple[str, dict[str, Any]]]()
    for where, record in records_of(path)[1]:
        if not isinstance(record, Mapping) or not isinstance(record.get("name"), str):
            raise DataError(
                f"{where}: no instance with a name; a second source is a file of instances, or a text; correct it"
            )
        values = record.get("attributes", record)
        if not isinstance(values, Mapping):
            raise DataError(f"{where}: attributes is {type(values).__name__}; give a mapping of attributes to values")
        for name in (record["name"], *aliases_of(record.get("aliases"), where)):
            known.setdefault(plain(name), (where, {str(key): value for key, value in values.items()}))

    def confirms(instance: Instance, fact: Fact) -> Said:
        for name in (instance.name, *instance.aliases):
            where, values = known.get(plain(name), ("", {}))
            if (value := values.get(fact.attribute)) is not None:
                kind = wordings[instance.kind].of(fact.attribute).type
                other = written(value, kind, f"{where} ({instance.name}): {fact.attribute}")
                same = same_value(other, fact.value, kind)
                return same, () if same else ((other, where),)
        return False, ()

    return confirms


def _document(path: Path, wordings: Mapping[str, Wordings]) -> Confirms:
    texts = [(text, f" {plain(text)} ") for _, text in paragraphs(read_text(path, DataError, "--check-against"))]

    def confirms(instance: Instance, fact: Fact) -> Said:
        names = [f" {plain(name)} " for name in (instance.name, *instance.aliases)]
        kind = wordings[instance.kind].of(fact.attribute).type
        about = (text for text, spaced in texts if any(name in spaced for name in names))
        return any(says_value(text, fact.value, kind) for text in about), ()

    return confirms
