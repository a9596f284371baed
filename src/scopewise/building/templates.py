"""The shipped wordings: frames of questions, and the wordings of each attribute, for train and for val."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from scopewise.data.rows import SPLITS
from scopewise.documents import parse_yaml, read_text
from scopewise.errors import DataError

FOLDER = Path(str(resources.files(__name__.rpartition(".")[0]))) / "templates"


@dataclass(frozen=True)
class Wording:
    """Wordings of one attribute in one split.

    Attributes:
        noun: "home address" of "the home address of Ada".
        clause: "where {name} lives".
        ask: Whole questions.
        predicate: "lives at {value}".
        answer: Whole sentences.
    """

    noun: str
    clause: str
    ask: tuple[str, ...]
    predicate: str
    answer: tuple[str, ...]


@dataclass(frozen=True)
class AttributeWordings:
    """The type of an attribute's values, and its wordings by split."""

    type: str
    by_split: Mapping[str, Wording]


@dataclass(frozen=True)
class Wordings:
    """Wordings of a kind of instance.

    Attributes:
        who: Split → "who" or "which work".
        described: How an instance is described by a fact: "the person who {predicate}".
        attributes: By name; `other` is for names that have none.
    """

    who: Mapping[str, str]
    described: str
    attributes: Mapping[str, AttributeWordings]

    def of(self, attribute: str) -> AttributeWordings:
        """Return the wordings of an attribute; for one without its own, general ones that name it."""
        return self.attributes[attribute] if attribute in self.attributes else self._other(attribute)

    def _other(self, attribute: str) -> AttributeWordings:
        other, spoken = self.attributes["other"], attribute.replace("_", " ").replace("{", "").replace("}", "")

        several = spoken.endswith("s") and not spoken.endswith(("ss", "us", "is"))
        words = {"{attribute}": spoken, "{is}": "are" if several else "is", "{this}": "these" if several else "this"}

        def fill(text: str) -> str:
            for field, word in words.items():
                text = text.replace(field, word)
            return text

        def named(wording: Wording) -> Wording:
            return Wording(
                fill(wording.noun), fill(wording.clause), tuple(map(fill, wording.ask)), fill(wording.predicate),
                tuple(map(fill, wording.answer)),
            )  # fmt: skip

        return AttributeWordings(other.type, {split: named(wording) for split, wording in other.by_split.items()})


@dataclass(frozen=True)
class Frames:
    """Beginnings of questions that every attribute shares: split → kind of frame → texts; and the blank of a cloze."""

    by_split: Mapping[str, Mapping[str, tuple[str, ...]]]
    blank: str


@cache
def wordings(kind: str) -> Wordings:
    """Return the shipped wordings of `person` or `work`."""
    content = shipped(kind)
    attributes = {
        name: AttributeWordings(spec["type"], {split: _wording(spec, split) for split in SPLITS})
        for name, spec in content["attributes"].items()
    }
    return Wordings(content["who"], content["described"], attributes)


@cache
def frames() -> Frames:
    """Return the shipped frames."""
    content = shipped("frames")
    by_split = {split: {kind: tuple(texts) for kind, texts in content[split].items()} for split in SPLITS}
    return Frames(by_split, content["blank"])


@cache
def shipped(name: str) -> Any:
    """Return the decoded content of a file of templates in the package; it is read once, and not to be changed."""
    path = FOLDER / f"{name}.yaml"
    return parse_yaml(read_text(path, DataError), str(path), DataError)


def _wording(spec: Mapping[str, Any], split: str) -> Wording:
    texts = {key: spec[key][split] for key in ("noun", "clause", "predicate")}
    return Wording(ask=tuple(spec["ask"][split]), answer=tuple(spec["answer"][split]), **texts)
