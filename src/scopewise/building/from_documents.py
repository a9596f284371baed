"""Instances found in documents: e-mail addresses, phone and other numbers, dates of birth near a name, each with its place."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scopewise.building.instances import (
    PERSON,
    Instance,
    InstanceFile,
    LeftOut,
    Span,
    make_instance,
    with_unique_names,
)
from scopewise.building.law import Law
from scopewise.building.same import same_value
from scopewise.building.templates import Wordings
from scopewise.building.values import DATE_PATTERN, EMAIL_PATTERN, PHONE_PATTERN
from scopewise.documents import read_text
from scopewise.errors import ConfigError, DataError

TEXTS = (".txt", ".md")
"""Endings of documents."""
NEAR = 300
"""Most characters between a fact and the name that it belongs to, in one paragraph."""

_FOUND = {
    "email": re.compile(EMAIL_PATTERN),
    "phone": re.compile(
        rf"(?:(?:phone|tel|telephone|mobile|call|ring)\W{{1,12}}?|(?=\+))(?P<value>{PHONE_PATTERN})", re.I
    ),
    "born": re.compile(rf"\b(?:born|birth)\b[^.;\n]{{0,40}}?(?P<value>{DATE_PATTERN})", re.I),
    "bank_account": re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?(?!\w)"),
    "identity_number": re.compile(
        r"(?i:\b(?:passport|social security|national insurance|identity(?: card)?|ID|tax)(?: number| no\.?| nr\.?)|\bSSN)"
        r"\b\W{1,4}(?:is |was )?(?P<value>[A-Z]{0,3} ?\d(?:[ -]?\d){4,15}[A-Z]?)(?!\w)"
    ),
}
"""Attribute → what it looks like, and what stands before it; a date alone says nothing of what happened then."""


@dataclass(frozen=True)
class _Found:
    name: str
    attribute: str
    value: str
    span: Span


def from_documents(
    paths: Sequence[str], names: str | None, laws: Sequence[Law], wordings: Mapping[str, Wordings]
) -> InstanceFile:
    """Return the persons of documents with the facts found near their names.

    A fact belongs to the last name before it in the same paragraph, or else to the first after it, at most 300 characters
    away. If documents give two different values, neither can be verified, and the fact is left out, with both; so is a person
    without facts of both scopes. The same value in two forms is one (`same_value`).

    Args:
        paths: Text files, or folders of them (`*.txt`, `*.md`).
        names: A file with a name on each line, with aliases behind semicolons; None looks for names with spaCy.
        laws: Law tables; the first for persons applies.
        wordings: As in `read_instances`.

    Raises:
        DataError: a file cannot be read, or no person is left; one sentence.
        ConfigError: no names are given, and spaCy is not installed.
    """
    texts = {str(path): read_text(path, DataError, "--from-documents") for path in text_files(paths)}
    aliases = _names(names) if names else {name: [] for name in find_names(texts.values())}
    found = [fact for document, text in texts.items() for fact in _facts(document, text, aliases)]
    left_facts, left_instances, instances = list[LeftOut](), list[LeftOut](), list[Instance]()
    for name, others in aliases.items():
        given, spans = dict[str, Any](), dict[str, Span]()
        for attribute in _FOUND:
            kind, values = wordings[PERSON].of(attribute).type, list[_Found]()
            for one in found:
                if (one.name, one.attribute) != (name, attribute):
                    continue
                if not any(same_value(one.value, other.value, kind) for other in values):
                    values.append(one)
            if len(values) > 1:
                why = f"{len(values)} different values in {', '.join(sorted({v.span.document for v in values}))}"
                places = tuple((v.value, f"{v.span.document}:{v.span.start}-{v.span.end}") for v in values)
                left_facts.append(LeftOut(name, why, attribute, places))
            elif values:
                (one,) = values
                given[attribute], spans[attribute] = one.value, one.span
        where = f"{next(iter(spans.values())).document if spans else 'documents'}"
        try:
            record = {"name": name, "kind": PERSON, "aliases": others, "attributes": given}
            instances.append(make_instance(where, record, laws, wordings, spans))
        except DataError as error:
            left_instances.append(LeftOut(name, str(error).partition("; ")[0].removeprefix(f"{where} ({name[:60]}): ")))
    if not instances:
        raise DataError(
            f"--from-documents: {len(texts)} documents, {len(aliases)} names, and no person with facts of both scopes; "
            f"{left_instances[0].instance}: {left_instances[0].why}"
        )
    return InstanceFile(tuple(with_unique_names(instances)), "", tuple(left_facts), tuple(left_instances))


def find_names(texts: Iterable[str]) -> list[str]:
    """Return the names of persons in texts, by spaCy's English model. Raises ConfigError if it is not installed."""
    if importlib.util.find_spec("spacy") is None or importlib.util.find_spec("en_core_web_sm") is None:
        raise ConfigError(
            "--instances: none given, and spaCy with its model en_core_web_sm is not installed to find names; give a file "
            "with a name on each line, or install both"
        )
    recognise = importlib.import_module("en_core_web_sm").load()
    found = {
        " ".join(entity.text.split()) for text in texts for entity in recognise(text).ents if entity.label_ == "PERSON"
    }
    return sorted(name for name in found if len(name.split()) > 1)


def paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """Yield each paragraph with the place of its first character."""
    for found in re.finditer(r"(?:[^\n]+\n?)+", text):
        yield found.start(), found[0]


def _facts(document: str, text: str, aliases: Mapping[str, Sequence[str]]) -> Iterator[_Found]:
    every = sorted(
        {own: name for name, others in aliases.items() for own in (name, *others)}.items(), key=lambda p: -len(p[0])
    )
    owner = dict(every)
    named = re.compile(rf"(?<!\w)(?:{'|'.join(re.escape(own) for own, _ in every)})(?!\w)")
    for start, paragraph in paragraphs(text):
        mentions = [(found.start(), found.end(), owner[found[0]]) for found in named.finditer(paragraph)]
        if not mentions:
            continue
        for attribute, pattern in _FOUND.items():
            group = "value" if "value" in pattern.groupindex else 0
            for found in pattern.finditer(paragraph):
                begin, end = found.span(group)
                if attribute == "bank_account":
                    end = begin + len(_iban(found[0]))
                if begin == end:
                    continue
                before = [m for m in mentions if m[1] <= begin]
                first, last, name = before[-1] if before else mentions[0]
                if max(begin - last, first - end) <= NEAR:
                    yield _Found(name, attribute, paragraph[begin:end], Span(document, start + begin, start + end))


def _iban(text: str) -> str:
    """Return the first words of a text that are an IBAN by its check digits (ISO 13616: modulo 97); empty if none are."""
    words = text.split(" ")
    for count in range(len(words), 0, -1):
        joined = "".join(words[:count])
        if len(joined) >= 15 and int("".join(str(int(c, 36)) for c in joined[4:] + joined[:4])) % 97 == 1:
            return " ".join(words[:count])
    return ""


def text_files(paths: Sequence[str]) -> list[Path]:
    """Return files, and of folders the texts in them (`*.txt`, `*.md`). Raises DataError if there are none."""
    found = list[Path]()
    for text in paths:
        path = Path(text)
        if path.is_dir():
            found += sorted(file for file in path.iterdir() if file.suffix in TEXTS)
        else:
            found.append(path)
    if not found:
        raise DataError(f"--from-documents: {', '.join(paths)}; no text file there; give files or a folder")
    return list(dict.fromkeys(found))


def _names(path: str) -> dict[str, list[str]]:
    found = dict[str, list[str]]()
    for number, line in enumerate(read_text(path, DataError, "--instances").split("\n"), 1):
        name, *others = (" ".join(part.split()) for part in line.split(";"))
        if name in found:
            raise DataError(f"{path}:{number}: the name {name!r} a second time; keep one of the lines")
        if name:
            found[name] = [other for other in others if other]
    if not found:
        raise DataError(f"{path}: no name in it; write one on each line")
    return found
