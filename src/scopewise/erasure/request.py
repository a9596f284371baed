"""A deletion request: what to remove from which model, by which law, and until when."""

from __future__ import annotations

import calendar
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationError, field_validator

from scopewise import registry
from scopewise.config import DataSection
from scopewise.data.crossed import plain
from scopewise.data.instances import instance_names
from scopewise.data.load import load_benchmark
from scopewise.data.rows import CHOICE, FORGET, RETAIN, SCOPES, TRAIN, Row, check_scopes, each_row
from scopewise.data.tables import read_table, table_rows
from scopewise.documents import parse_json, parse_yaml, read_text
from scopewise.erasure.open_dsr import from_open_dsr
from scopewise.errors import ConfigError, DataError
from scopewise.section import Section, sentence

logger = logging.getLogger("scopewise")


@dataclass(frozen=True)
class Regulation:
    """Why the facts must go, and how long the controller may take.

    Attributes:
        title: As it is cited.
        months: Months from the receipt of the request.
        days: Days from the receipt. If both are 0, the law sets no time, and the request may.
    """

    title: str
    months: int = 0
    days: int = 0

    def due(self, received: datetime) -> datetime | None:
        """Return when the request must be answered; None if the law sets no time.

        A month ends on the day of the same number, or on the last day of a shorter month (Regulation (EEC, Euratom)
        No 1182/71, Article 3(2)(c)). Holidays, which would extend it, are not considered.
        """
        if not (self.months or self.days):
            return None
        year, month = divmod(received.year * 12 + received.month - 1 + self.months, 12)
        day = min(received.day, calendar.monthrange(year, month + 1)[1])
        return received.replace(year=year, month=month + 1, day=day) + timedelta(days=self.days)


REGULATIONS: Mapping[str, Regulation] = {
    "gdpr": Regulation("GDPR, Articles 17 and 12(3)", months=1),
    "ccpa": Regulation("California Civil Code, sections 1798.105 and 1798.130(a)(2)", days=45),
    "contract": Regulation("Contract"),
    "copyright": Regulation("Copyright"),
}


class Descendant(Section):
    """A model that was made from the one to be changed, such as an adapter, or a quantized or distilled model.

    Attributes:
        path: Its folder, file or hub name.
        kind: `adapter`, `quantized`, `distilled`, or what else it is.
        done: Whether the facts were removed from it, or it was deleted.
    """

    path: str
    kind: str = ""
    done: bool = False


class Lineage(Section):
    """The model of a request (a folder or a hub name), the base it was fine-tuned from, and what was made from it."""

    path: str | None = None
    base: str | None = None
    descendants: tuple[Descendant, ...] = ()


class Subject(Section):
    """The person of a request, as a hash; `subject_hash` of `open_dsr.py` makes one."""

    REFUSED: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("name", "email", "address", "phone"), "only a salted hash of the person is kept; remove it"
    )

    salted_hash: str = Field(pattern=r"^([a-z0-9-]+:)?[0-9a-fA-F]{32,128}$")
    salt: str | None = None
    scheme: str | None = None


class RequestFile(Section):
    """The keys of a request file; its `rows` are read apart."""

    id: str | None = None
    regulation: Literal["gdpr", "ccpa", "contract", "copyright"] | None = None
    received: datetime | None = None
    due: datetime | None = None
    subject: Subject | None = None
    model: Lineage = Lineage()
    law: dict[str, Literal["unlearn", "retain"]] = Field(default_factory=dict)
    rows: str | list[Any] | None = None

    @field_validator("regulation", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @field_validator("received", "due", mode="before")
    @classmethod
    def _utc(cls, value: Any) -> datetime | None:
        try:
            found = None if value is None else datetime.fromisoformat(value)
            return found and (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, TypeError, OverflowError):
            raise ValueError("no time; write it as 2026-11-20T09:00:00Z") from None


@dataclass(frozen=True)
class Request:
    """One deletion request. Only its rows contain personal data; its `repr` leaves them out.

    Attributes:
        id: Opaque: letters, digits and `._-`, and no name that the rows are about.
        regulation: A key of `REGULATIONS`; None if none was given.
        received: When the request arrived (UTC).
        due: When it must be answered (UTC); None if no time is set.
        subject: A hash of the person's identities, with salt and scheme if they are known; None if none was given.
        model: What is known of the model.
        rows: What to forget and what to keep.
        law: Attribute → `forget` or `retain`, as the request states it.
        source: The file that was read.
        parts: Of several in one (`union`), the number of forget rows of each, in order.
        dated: Which of `received` and `due` the file itself says; the others are of the moment when it was read.
    """

    id: str
    regulation: str | None
    received: datetime
    due: datetime | None
    subject: Mapping[str, str] | None
    model: Lineage
    rows: tuple[Row, ...] = field(repr=False)
    law: Mapping[str, str]
    source: Path
    parts: tuple[int, ...] = ()
    dated: frozenset[str] = frozenset()


def find_requests(
    sources: Sequence[str | Path],
    data: DataSection,
    mapping: Mapping[str, str] | None = None,
    *,
    name: str | None = None,
) -> list[Request]:
    """Return the requests in files, or those of benchmarks by their names.

    Args:
        sources: Files as `read_request` takes them, or names of benchmarks.
        data: Which rows of a benchmark.
        mapping: As in `read_request`.
        name: As there, of a single file.

    Raises:
        DataError: as `read_request`, or neither a file nor a benchmark.
        ConfigError: a setting chooses rows of a benchmark, and there are only files.
    """
    benchmarks, found = registry.table("benchmarks"), []
    for source in map(str, sources):
        benchmark, file = source.replace("-", "_"), Path(source)
        if not file.exists() and benchmark not in benchmarks:
            raise DataError(
                f"{source}: no such file; give a file of rows, a request file or the name of a benchmark."
                f"{'' if file.suffix else registry.nearest(benchmark, benchmarks)}"
            )
        found.append(read_request(file, mapping, name=name) if file.exists() else request_of(benchmark, data))
    chosen = data.model_fields_set & {"path", "domain", "instances"}
    if chosen and all(Path(source).exists() for source in sources):
        raise ConfigError(
            f"--set data.{min(chosen)}=…: it chooses rows of a benchmark, and the request is a file; remove it"
        )
    return found


def read_request(
    path: str | Path,
    mapping: Mapping[str, str] | None = None,
    *,
    id: str | None = None,
    name: str | None = None,
    now: datetime | None = None,
) -> Request:
    """Return the request in a file of rows, in a request file (YAML or JSON), or in an OpenDSR 2.0 erasure request.

    Args:
        path: The file. A file of rows is any that `read_table` reads; its name is the id.
        mapping: Field of a row → column that has it.
        id: In place of the file's name or the request's own.
        name: The id of a file of rows, in place of its name.
        now: When it was received, if the request does not say; None takes the clock.

    Raises:
        DataError: the file or a row is wrong, there is no forget row, or the id contains a name; one sentence.
        ConfigError: `mapping` names no field of a row.
    """
    path = Path(path)
    record = _request_in(path)
    if record is None:
        file, rows, law = RequestFile(id=name or path.name.partition(".")[0]), read_table(path, mapping, setting=""), {}
    else:
        if foreign := "subject_request_id" in record:
            record = from_open_dsr(record, path)
        given = record.pop("rows", None)
        try:
            file = RequestFile.model_validate(record)
        except ValidationError as error:
            raise DataError(f"{path}: {sentence(error, RequestFile)}") from None
        law = {attribute: FORGET if what == "unlearn" else RETAIN for attribute, what in file.law.items()}
        rows = _rows(given, path, mapping, law, inside=foreign)
    rows = _without_choices(rows, path)
    _check_rows(rows, law, path)
    dated = frozenset(name for name in ("received", "due") if getattr(file, name) is not None)
    now = (now or datetime.now(UTC)).astimezone(UTC)
    received = file.received or now.replace(microsecond=0)
    if received > now + timedelta(days=1):
        raise DataError(f"{path}: received {received.isoformat()} is in the future; correct it")
    due = file.due or (REGULATIONS[file.regulation].due(received) if file.regulation else None)
    if due is not None and due < received:
        raise DataError(f"{path}: due {due.isoformat()} is before received {received.isoformat()}; correct one of them")
    return Request(
        id=_checked_id(id or file.id or "", rows, path),
        regulation=file.regulation,
        received=received,
        due=due,
        subject=None if file.subject is None else file.subject.model_dump(exclude_none=True),
        model=_located(file.model, path.parent),
        rows=tuple(rows),
        law=law,
        source=path,
        dated=dated | {"due"} if "received" in dated else dated,
    )


def union(requests: Sequence[Request]) -> Request:
    """Return one request for what several ask of the same model; a single one is returned as it is.

    A retain row whose question another request asks to forget is left out, and equal retain rows are kept once.

    Raises:
        DataError: no request, two with the same id, or of different models; one sentence.
    """
    if len(requests) == 1:
        return requests[0]
    if not requests:
        raise DataError("requests: none; give at least one")
    first, seen = requests[0], dict[str, Path]()
    for one in requests:
        if one.id in seen:
            raise DataError(f"{one.source}: id {one.id!r}, and {seen[one.id]} has it too; give each request its own id")
        seen[one.id] = one.source
        if (one.model.path, one.model.base) != (first.model.path, first.model.base):
            raise DataError(
                f"{one.source}: model {one.model.path}, base {one.model.base}; {first.source} names {first.model.path}, base "
                f"{first.model.base}; requests of one training have the same model; give the others in a command of their own"
            )
    forgotten = {plain(row.question) for one in requests for row in one.rows if row.scope == FORGET and row.question}
    kept = {
        row: None
        for one in requests
        for row in one.rows
        if row.scope != FORGET and plain(row.question) not in forgotten
    }
    forget = [[row for row in one.rows if row.scope == FORGET] for one in requests]
    regulations = {one.regulation for one in requests}
    return replace(
        first,
        id=f"{first.id[:80]}-and-{len(requests) - 1}-more",
        regulation=first.regulation if len(regulations) == 1 else None,
        model=Lineage(path=first.model.path, base=first.model.base),
        rows=(*(row for own in forget for row in own), *kept),
        parts=tuple(len(own) for own in forget),
    )


def request_of(benchmark: str, data: DataSection) -> Request:
    """Return a request to remove all forget rows of a benchmark, those of val too, and to keep its retain rows.

    Args:
        benchmark: Its name.
        data: Where it lies, and which part of it.
    """
    found = load_benchmark(benchmark, data.path, data.domain, instances=data.instances)
    rows = tuple(
        replace(row, split=TRAIN) for row in _without_choices(found.rows, Path(benchmark)) if row.scope in SCOPES
    )
    now = datetime.now(UTC).replace(microsecond=0)
    return Request(benchmark, None, now, None, None, Lineage(), rows, {}, Path(benchmark))


def _request_in(path: Path) -> dict[Any, Any] | None:
    """Return the object in a request file; None for a file of rows."""
    if path.suffix in (".yaml", ".yml"):
        record = parse_yaml(read_text(path, DataError), str(path), DataError)
        if not isinstance(record, dict):
            raise DataError(f"{path}: {type(record).__name__}; a request file has keys, such as 'id' and 'rows'")
        return record
    if path.suffix == ".json" and path.is_file():
        try:
            record = parse_json(read_text(path, DataError), str(path), DataError)
        except DataError:
            return None  # JSON lines, or broken; the reader of rows says where
        if isinstance(record, dict) and record.keys() & {"rows", "regulation", "subject_request_id"}:
            return record
    return None


def _rows(
    given: object, path: Path, mapping: Mapping[str, str] | None, law: Mapping[str, str], inside: bool
) -> list[Row]:
    """Return the rows of a request: a list, or a file beside it, which must be `inside` its folder or may be elsewhere."""
    if isinstance(given, list):
        records = [(f"{path}:row {i}", record) for i, record in enumerate(given, start=1)]
        return table_rows(records, str(path), mapping, law=law)
    if not isinstance(given, str):
        what = "no rows" if given is None else f"rows is {type(given).__name__}"
        raise DataError(f"{path}: {what}; name a file of rows, or write them as a list")
    file = path.parent / given
    if inside and not file.resolve().is_relative_to(path.parent.resolve()):
        raise DataError(f"{path}: rows {given!r} is outside the request's folder; put the file beside the request")
    if not file.exists():
        raise DataError(f"{path}: rows {given!r}; no such file; a path begins at the request's folder; correct it")
    return read_table(file, mapping, law=law, setting="rows")


def _check_rows(rows: Sequence[Row], law: Mapping[str, str], path: Path) -> None:
    scopes = {attribute.casefold(): scope for attribute, scope in law.items()}

    def check(origin: str, row: Row) -> None:
        stated = scopes.get(row.attribute.casefold(), row.scope)
        if row.scope in SCOPES and stated != row.scope:
            raise DataError(
                f"{origin}: scope {row.scope!r}, and the request's law says {stated!r} for {row.attribute!r}; correct one"
            )

    each_row(((row.origin, row) for row in rows), check)
    if not rows:
        raise DataError(f"{path}: no row in it; a request needs at least one question with its answer")
    if not any(row.scope == FORGET for row in rows):
        raise DataError(f"{path}: {len(rows)} rows, none of scope {FORGET!r}; a request needs at least one to forget")
    check_scopes(rows)


def _without_choices(rows: Sequence[Row], path: Path) -> list[Row]:
    """Return the rows but those of multiple choice: exposure cannot rank an answer that its question gives."""
    kept = [row for row in rows if row.kind != CHOICE]
    if left := len(rows) - len(kept):
        logger.warning(f"{path}: {left} rows of kind {CHOICE!r} are left out, since their questions give the answer")
    return kept


def _checked_id(given: str, rows: Sequence[Row], path: Path) -> str:
    if not given:
        raise DataError(
            f"{path}: no id; records name a request by it, and it names no person; add one, as in id: REQ-17"
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", given):
        raise DataError(
            f"{path}: id {given!r}; an id has letters, digits, '.', '_' and '-'; rename the file, or give another"
        )
    words = set(_words(given))
    for person in instance_names([row for row in rows if row.domain == "privacy"]):
        if found := sorted(words & set(_words(person))):
            raise DataError(
                f"{path}: the id {given!r} contains {found[0]!r}, of a name in the rows, and records keep no names; rename the "
                "file, or give another id"
            )
    return given


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]{3,}", text.casefold())


def _located(model: Lineage, folder: Path) -> Lineage:
    """Return a lineage in which folders beside the request have their path; other names, as of the hub, are unchanged."""

    def located(name: str | None) -> str | None:
        return str(folder / name) if name and (folder / name).exists() else name

    descendants = tuple(each.model_copy(update={"path": located(each.path)}) for each in model.descendants)
    return Lineage(path=located(model.path), base=located(model.base), descendants=descendants)
