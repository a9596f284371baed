"""A row (one question with its answer and scope) and a benchmark (the rows of both scopes)."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from scopewise.documents import is_unicode, parse_json, read_text
from scopewise.errors import ConfigError, DataError
from scopewise.registry import allowed, nearest

logger = logging.getLogger("scopewise")
T = TypeVar("T")
Made = TypeVar("Made")
_PLACES = 5
"""Number of wrong rows that are named besides the first."""

FORGET, RETAIN = "forget", "retain"
SCOPES = (FORGET, RETAIN)
HOLDOUT, REAL_AUTHORS, WORLD_FACTS, NEIGHBOR = "holdout", "real_authors", "world_facts", "neighbor"
ALL_SCOPES = (*SCOPES, HOLDOUT, REAL_AUTHORS, WORLD_FACTS, NEIGHBOR)
"""Further scopes that are evaluated: rows like the forget rows that no model saw, and other knowledge that should stay."""
TRAIN, VAL = "train", "val"
SPLITS = (TRAIN, VAL)
CHOICE = "multiple-choice"
"""Kind of a question that offers its answer among others, so that it measures recognition and not recall."""


@dataclass(frozen=True)
class Row:
    """One question and its answer.

    Attributes:
        question: The question; empty for plain text, all of whose tokens count as answer.
        answer: The answer that the target was trained on.
        scope: `forget` (the paper's Unlearn Scope) or `retain` (its Retention Scope); for rows that are only measured also
            `holdout` (like the forget rows, but never taught), `real_authors`, `world_facts`, `neighbor`.
        split: `train` (used for unlearning) or `val` (used for evaluation).
        instance: The person or book the row is about, if the data has it.
        attribute: The kind of fact about the instance (`email`, `genre`, …), if the data has it.
        domain: `privacy` or `copyright`; selects the wording of the direct prompt.
        legal_basis: Why the row is in its scope, if the data has it.
        alternative: A preferred answer for the methods that train on one (forget rows).
        paraphrase: The answer in other words, for the truth ratio.
        perturbed: Wrong answers of the same form, for the truth ratio and for choosing among options.
        indirect: Other questions with the same answer (by an alias, by way of another fact), for the attack `indirect`.
        paraphrased_questions: The question in other words, for `unlearn.expand.paraphrases`; never one of val.
        kind: The kind of question (`direct`, `inverse`, `multiple-choice`, …), if the data has it; see `scopewise build`.
        origin: File and line (or index) the row came from; not part of its content.
    """

    question: str
    answer: str
    scope: str
    split: str = TRAIN
    instance: str = ""
    attribute: str = ""
    domain: str = "privacy"
    legal_basis: str = ""
    alternative: str = ""
    paraphrase: str = ""
    perturbed: tuple[str, ...] = ()
    indirect: tuple[str, ...] = ()
    paraphrased_questions: tuple[str, ...] = ()
    kind: str = ""
    origin: str = field(default="", compare=False)


@dataclass(frozen=True)
class Benchmark:
    """The rows of both scopes, and general text for the out-of-distribution methods.

    Attributes:
        name: Benchmark name, as in `scopewise list benchmarks`.
        rows: All rows, in file order.
        general: Text of no scope, for the methods that retain on general text.
        taught: Splits that the target is trained on: both in KnowUnDo; only train if the val rows ask again for facts of
            train.
    """

    name: str
    rows: tuple[Row, ...]
    general: tuple[Row, ...] = ()
    taught: tuple[str, ...] = SPLITS

    def select(self, scope: str | None = None, split: str | None = None) -> list[Row]:
        """Return the rows of a scope and a split, in file order; None takes every one. ConfigError for another name."""
        for what, value, known in (("scope", scope, ALL_SCOPES), ("split", split, SPLITS)):
            if value is not None and value not in known:
                raise ConfigError(f"{what}: {value!r}; {allowed(value, known)}")
        return [r for r in self.rows if scope in (None, r.scope) and split in (None, r.split)]

    def content_hash(self) -> str:
        """Return the SHA-256 (hex) of all rows and general text, independent of where they were read from."""
        digest = hashlib.sha256()
        for row in (*self.rows, *self.general):
            content = {k: v for k, v in asdict(row).items() if k != "origin" and (v or k not in _LATER_FIELDS)}
            digest.update(json.dumps(content, sort_keys=True, ensure_ascii=False).encode())
        return digest.hexdigest()

    def check(self) -> Benchmark:
        """Return self, or raise DataError if a scope has no train row or a question is in both scopes."""
        for scope in SCOPES:
            if not self.select(scope, TRAIN):
                raise DataError(
                    f"{self.name}: no {TRAIN} row of scope {scope!r}; unlearning needs rows of both scopes, "
                    f"{FORGET!r} and {RETAIN!r}; add some, or correct their 'scope' and 'split'"
                )
        check_scopes(self.rows)
        return self


FIELDS = tuple(field.name for field in fields(Row) if field.name != "origin")
"""Fields of a row in a file."""

_LATER_FIELDS = ("alternative", "paraphrase", "perturbed", "indirect", "paraphrased_questions", "kind")
"""Fields that are hashed only where they are not empty, so that adding them kept the hashes of older benchmarks."""


LISTS: Mapping[str, str] = {
    "perturbed": "wrong answers",
    "indirect": "questions",
    "paraphrased_questions": "paraphrases",
}
"""Fields that are lists of texts, and what of."""


class BenchmarkLoader:
    """Base of the loaders: a name, domains, prompt and evaluation settings, and `load`."""

    name: ClassVar[str]
    domains: ClassVar[tuple[str, ...]] = ("privacy", "copyright")
    """Values of `data.domain`; empty where they come from the data."""
    taught: ClassVar[tuple[str, ...]] = SPLITS
    """Splits that the target is fine-tuned on."""
    data: ClassVar[Mapping[str, Any]] = {}
    """Defaults for the run file's `data` section."""
    suite: ClassVar[Mapping[str, Any]] = {}
    """Defaults for the run file's `evaluate` section."""

    def load(self, path: str | None, domain: str | None) -> list[Row]:
        """Return the rows of a domain (None: all there are) from `path` (None: the loader's own source).

        Raises:
            DataError: the source cannot be read, or a row is wrong; the message names file and line.
        """
        raise NotImplementedError


def make_rows(records: Iterable[tuple[str, object]], **fixed: Any) -> list[Row]:
    """Build rows from decoded objects with their origins; columns that a row does not have are ignored, and named once.

    Args:
        records: The location of each record, and the object.
        **fixed: Fields that override the records'.

    Raises:
        DataError: as `make_row`.
    """
    records = list(records)
    rows = each_row(records, lambda origin, record: make_row(record, origin, **fixed))
    ignored: dict[str, str] = {}
    for origin, record in records:
        ignored.update((str(key), origin) for key in unknown_fields(record) if str(key) not in ignored)
    for key, origin in ignored.items():
        meant = nearest(key, FIELDS) if _is_misspelt(key) else ""
        logger.warning(f"{origin}: column {key!r} is no field of a row, and is ignored.{meant}")
    return rows


def each_row(records: Iterable[tuple[str, T]], make: Callable[[str, T], Made]) -> list[Made]:
    """Return `make(location, record)` for each record.

    Raises:
        DataError: `make` raised it; the message is that of the first wrong record, with the number and locations of the
        others.
    """
    made: list[Made] = []
    wrong: list[tuple[str, DataError]] = []
    count = 0
    for origin, record in records:
        count += 1
        try:
            made.append(make(origin, record))
        except DataError as error:
            wrong.append((origin, error))
    if len(wrong) > 1:
        first, *others = wrong
        ends = [origin.rpartition(":")[2] for origin, _ in others[:_PLACES]]
        name = "line" if all(end.isdigit() for end in ends) else "row"
        name = "instance" if all(end.startswith("instance ") for end in ends) else name
        places = [end.removeprefix(f"{name} ") for end in ends]
        shown = f"{name}{'s' if len(places) > 1 else ''} {', '.join(places)}{', …' if len(others) > _PLACES else ''}"
        sentence, are = str(first[1]).rstrip("."), "is" if len(others) == 1 else "are"
        raise DataError(
            f"{sentence}{'' if sentence.endswith('?') else ';'} {len(others)} more of {count} "
            f"{'instances' if name == 'instance' else 'rows'} {are} wrong: {shown}"
        )
    if wrong:
        raise wrong[0][1]
    return made


def make_row(record: object, origin: str, **fixed: Any) -> Row:
    """Build a row from a decoded JSON object; fields in `fixed` override the record's.

    An optional field that is null counts as missing; columns that are not fields of a row are ignored.

    Raises:
        DataError: not an object, a field missing, empty or no text, an unknown scope or split.
    """
    if isinstance(record, BrokenLine):
        raise record.error
    if not isinstance(record, Mapping):
        raise DataError(f"{origin}: {type(record).__name__}; each row is an object with 'question' and 'answer'")
    given = {key: value for key, value in record.items() if key in FIELDS and value is not None}
    values: dict[str, Any] = {**given, **fixed}
    for key in ("question", "answer", "scope"):
        if key not in values:
            meant = [str(other) for other in unknown_fields(record) if nearest(str(other), [key])]
            hint = f" Did you mean {meant[0]!r} to be {key!r}?" if meant else ""
            state = "null" if key in record else "missing"
            raise DataError(
                f"{origin}: field {key!r} is {state}; every row needs 'question', 'answer' and 'scope'.{hint}"
            )
    for key, value in values.items():
        if key in LISTS:
            if not isinstance(value, list | tuple) or not all(isinstance(v, str) and v.strip() for v in value):
                raise DataError(f"{origin}: field {key!r} is not a list of texts; give the {LISTS[key]} as a list")
            values[key] = tuple(value)
        elif not isinstance(value, str):
            raise DataError(f"{origin}: field {key!r} is {type(value).__name__}; it must be text")
        for text in values[key] if key in LISTS else (value,):
            if not is_unicode(text):
                raise DataError(f"{origin}: field {key!r} has half of a surrogate pair; write the character itself")
    for key in ("question", "answer", "scope"):
        if not values[key].strip():
            raise DataError(f"{origin}: field {key!r} is empty; fill it or remove the row")
    if values["scope"] not in ALL_SCOPES:
        raise DataError(
            f"{origin}: unknown scope {values['scope']!r}; allowed are {FORGET} (to be removed from the model) and "
            f"{RETAIN} (to be kept); rows that are only measured may also have {', '.join(ALL_SCOPES[2:])}."
            f"{nearest(values['scope'], ALL_SCOPES)}"
        )
    if "split" in values and values["split"] not in SPLITS:
        raise DataError(f"{origin}: unknown split {values['split']!r}; {allowed(values['split'], SPLITS)}")
    return Row(**values, origin=origin)


def unknown_fields(record: object) -> list[Any]:
    """Return the columns of a decoded object that are not fields of a row."""
    return [key for key in record if key not in FIELDS] if isinstance(record, Mapping) else []


def _is_misspelt(key: str) -> bool:
    """Return whether a column's name looks like a misspelt field."""
    return bool(difflib.get_close_matches(key.lower(), FIELDS, n=1, cutoff=0.75))


def check_scopes(rows: Iterable[Row]) -> None:
    """Raise DataError if a question is in both scopes."""
    seen: dict[str, Row] = {}

    def check(origin: str, row: Row) -> None:
        if not row.question:  # plain text: two documents may share a line
            return
        question = " ".join(row.question.lower().split())
        first = seen.setdefault(question, row)
        if first.scope != row.scope and {first.scope, row.scope} == set(SCOPES):
            raise DataError(
                f"{origin}: this question is in scope {row.scope!r}, and in scope {first.scope!r} at {first.origin}; a "
                "question belongs to one scope; remove one of the two rows"
            )

    each_row(((row.origin, row) for row in rows), check)


@dataclass(frozen=True)
class BrokenLine:
    """Placeholder for a line that is not JSON; `make_row` raises its error together with those of other rows."""

    error: DataError


def record_lines(path: Path, setting: str = "data.path") -> Iterator[tuple[str, object]]:
    """Return (file:line, decoded object or `BrokenLine`) of each non-blank line of a file."""
    return text_lines(read_text(path, DataError, setting), path)


def text_lines(text: str, path: Path) -> Iterator[tuple[str, object]]:
    """Return (file:line, decoded object or `BrokenLine`) of each non-blank line of a file's text."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{path}:{number}"
            try:
                yield where, parse_json(line, where, DataError)
            except DataError as error:
                yield where, BrokenLine(error)


def unbroken(records: Iterable[tuple[str, object]]) -> list[tuple[str, object]]:
    """Return the same records; DataError names the broken ones."""

    def whole(origin: str, record: object) -> tuple[str, object]:
        if isinstance(record, BrokenLine):
            raise record.error
        return origin, record

    return each_row(records, whole)


def read_json_lines(path: Path, setting: str = "data.path") -> list[tuple[int, object]]:
    """Return (line number from 1, decoded object) of each non-blank line; DataError names the broken lines."""
    found = unbroken(record_lines(path, setting))
    return [(int(origin.rpartition(":")[2]), record) for origin, record in found]
