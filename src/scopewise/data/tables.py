"""Rows from files as users have them: JSON, CSV, Parquet or a `datasets` folder, with the usual names of columns."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scopewise.data.rows import (
    ALL_SCOPES,
    FIELDS,
    FORGET,
    LISTS,
    TRAIN,
    VAL,
    BrokenLine,
    Row,
    make_rows,
    text_lines,
)  # fmt: skip
from scopewise.documents import parse_json, read_text
from scopewise.errors import ConfigError, DataError
from scopewise.registry import allowed, nearest

logger = logging.getLogger("scopewise")

ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
"""Endings of files of rows; all but `.parquet` may also be zipped (`.jsonl.gz`)."""

_SPLITS = {"train": TRAIN} | dict.fromkeys(("val", "valid", "validation", "dev", "eval", "test"), VAL)
"""Splits of a `datasets` folder → ours. A split may also be named like a scope."""
_ROLES = {"system": "system", "developer": "system", "user": "user", "human": "user", "assistant": "assistant"}
_ROLES |= {"gpt": "assistant", "model": "assistant"}
_LISTS = (*LISTS, "messages", "conversations", "prompt", "completion")
"""Columns whose cells may be lists, which CSV has as JSON."""
_SHOWN = 8
"""Largest number of columns that are named in a message."""


def read_table(
    path: str | Path,
    mapping: Mapping[str, str] | None = None,
    *,
    scope: str | None = FORGET,
    law: Mapping[str, str] | None = None,
    setting: str = "data.path",
    **fixed: Any,
) -> list[Row]:
    """Return the rows of a file or of a `datasets` folder.

    Columns have the names of a row's fields. Where a record has no `question` and `answer`, they are taken from
    `messages`, `conversations` (ShareGPT), `prompt` and `completion`, or `instruction`, `input` and `output` (Alpaca).
    A record of `instance`, `attribute` and `answer` asks "What is the ATTRIBUTE of INSTANCE?".

    Args:
        path: JSON lines (`.jsonl`, or no ending), `.json`, `.csv`, `.tsv`, `.parquet`, one of the texts with `.gz`, or a
            folder written by `save_to_disk`, whose splits give the split (or the scope) of rows that do not state it.
        mapping: Field of a row → column that has it, as in `{"answer": "response"}`.
        scope: Scope of all rows if no row states one; None makes it an error.
        law: Attribute → scope, for rows that do not state theirs. With it, `scope` does not apply.
        setting: The setting that names the path, for messages.
        **fixed: Fields that override the columns.

    Raises:
        DataError: the file cannot be read, or a row is wrong; the message names file and row.
        ConfigError: `mapping` names no field of a row.
    """
    records = read_records(Path(path), setting)
    return table_rows(records, str(path), mapping, scope=scope, law=law, **fixed)


def table_rows(
    records: Sequence[tuple[str, object]],
    name: str,
    mapping: Mapping[str, str] | None = None,
    *,
    scope: str | None = FORGET,
    law: Mapping[str, str] | None = None,
    **fixed: Any,
) -> list[Row]:
    """Return the rows of (place, object) pairs, as `read_table` does; `name` stands for them in messages."""
    mapping, law = mapping or {}, {attribute.casefold(): value for attribute, value in (law or {}).items()}
    for field in mapping:
        if field not in FIELDS:
            raise ConfigError(f"map: {field!r} is no field of a row; {allowed(field, FIELDS)}")
    columns = dict.fromkeys(str(column) for _, record in records if isinstance(record, Mapping) for column in record)
    for field, column in mapping.items():
        if records and column not in columns:
            raise DataError(f"{name}: no column {column!r} for {field!r}; {allowed(column, list(columns)[:_SHOWN])}")
    stated = any(isinstance(record, Mapping) and record.get("scope") is not None for _, record in records)
    default = None if stated or law else scope
    if default is not None and "scope" not in mapping and (other := _with_scopes(records, columns)) is not None:
        raise DataError(
            f"{name}: column {other!r} has scopes, but none is called 'scope', so every row would count as {default}; add "
            f"--map scope={other}, or rename it"
        )

    def shaped(origin: str, record: object) -> object:
        if not isinstance(record, Mapping):
            return record
        named = {key: value for key, value in record.items() if key not in mapping.values()}
        named |= {field: record[column] for field, column in mapping.items() if column in record}
        named = _shaped(named, origin)
        if isinstance(named, Mapping) and named.get("scope") is None:
            found = law.get(str(named.get("attribute")).casefold(), default)
            named |= {} if found is None else {"scope": found}
        return named

    found = [(origin, shaped(origin, record)) for origin, record in records]
    for field in ("question", "answer"):
        if found and all(isinstance(record, Mapping) and record.get(field) is None for _, record in found):
            names = ", ".join(repr(column)[:40] for column in list(columns)[:_SHOWN])
            raise DataError(
                f"{name}: no column {field!r} among its columns ({names}); add it, or say which column it is, as in "
                f"--map {field}=response.{nearest(field, set(columns) - set(FIELDS))}"
            )
    return make_rows(found, **fixed)


def _with_scopes(records: Sequence[tuple[str, object]], columns: Iterable[str]) -> str | None:
    """Return a column that is no field of a row and has nothing but scopes; None if there is none."""
    told = [record for _, record in records if isinstance(record, Mapping)]
    return next((c for c in columns if c not in FIELDS and all(one.get(c) in ALL_SCOPES for one in told)), None)


def as_rows(
    data: str | Path | Iterable[object], scope: str, split: str = TRAIN, *, every_split: bool = False
) -> list[Row]:
    """Return rows of one scope from a file, a `datasets.Dataset`, dicts or rows, with the columns of `read_table`.

    Rows with a scope or a split are selected by them, so one file may contain both scopes. A warning counts the rows that
    were left out.

    Args:
        data: A path as `read_table` takes it, or an iterable of `Row`, or of dicts with `question` and `answer` or with
            the columns of another shape, such as `messages`.
        scope: The scope to select, and the scope of dicts without one.
        split: The split to select, and the split of dicts without one.
        every_split: Take rows of both splits.

    Raises:
        DataError: wrong rows, or none of this scope and split.
    """
    if isinstance(data, str | Path):
        path = Path(data)
        name = str(path)
        records: list[tuple[str, object]] = read_records(path)
    else:
        name = scope
        try:
            records = [(f"{name}[{i}]", record) for i, record in enumerate(data)]
        except TypeError:
            raise DataError(f"{name}: {type(data).__name__}; give a file of rows, a dataset, or dicts") from None
    decoded = [(origin, record) for origin, record in records if not isinstance(record, Row)]
    made = iter(
        make_rows((origin, _with_defaults(_shaped(record, origin), scope, split)) for origin, record in decoded)
    )
    rows = [record if isinstance(record, Row) else next(made) for _, record in records]
    if not rows:
        raise DataError(f"{name}: no row; give at least one question with its answer")
    kept = [row for row in rows if row.scope == scope and (every_split or row.split == split)]
    wanted = f"scope {scope!r}" + ("" if every_split else f" and split {split!r}")
    if not kept:
        raise DataError(
            f"{name}: {len(rows)} rows, none of {wanted}; give rows of it, or leave 'scope' and 'split' out of them"
        )
    if len(kept) < len(rows):
        logger.warning(f"{name}: {len(kept)} of {len(rows)} rows taken, those of {wanted}")
    return kept


def _with_defaults(record: object, scope: str, split: str) -> object:
    if not isinstance(record, Mapping):
        return record
    return {"scope": scope, "split": split} | {key: value for key, value in record.items() if value is not None}


def read_records(path: Path, setting: str = "data.path") -> list[tuple[str, object]]:
    """Return the records of a file or a `datasets` folder, each with its place (file, and line or row).

    A line that is not JSON is a `BrokenLine`.

    Raises:
        DataError: the file cannot be read, or is not of the kind that its ending says.
    """
    kind = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if path.is_dir():
        return list(_of_datasets(path, setting))
    if kind == ".parquet":
        return _of_parquet(path)
    if path.exists() and kind not in ("", ".ndjson", *ENDINGS):
        raise DataError(
            f"{path}: a file of rows ends in {', '.join(ENDINGS)} (also zipped, .gz); save it as one of them"
        )
    text = read_text(path, DataError, setting)
    if kind in (".csv", ".tsv"):
        first = text.partition("\n")[0]
        return list(_of_cells(text, path, "\t" if kind == ".tsv" else max(",;\t", key=first.count)))
    if kind == ".json" and _is_one_document(text):
        found = parse_json(text, str(path), DataError)
        return [(f"{path}:row {i}", each) for i, each in enumerate(found if isinstance(found, list) else [found], 1)]
    return list(text_lines(text, path))


def _is_one_document(text: str) -> bool:
    """Return whether a `.json` file is one list or one object; the hub's are often JSON lines."""
    first = text.lstrip().partition("\n")[0].rstrip()
    return first.startswith("[") or not first.endswith("}")


def _of_cells(text: str, path: Path, delimiter: str) -> Iterator[tuple[str, object]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        where = f"{path}:{reader.line_num + 1}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{where}: broken row ({error}); correct its quotes") from None
        if cells is None:
            return
        if not any(cells):
            continue
        if not header:
            header = [name.strip() for name in cells]
            if twice := [name for name in header if header.count(name) > 1]:
                raise DataError(f"{where}: the column {twice[0]!r} stands twice in the header; rename one")
        elif len(cells) != len(header):
            found = f"{len(cells)} cells, and the header has {len(header)}"
            yield where, BrokenLine(DataError(f"{where}: {found}; quote a cell that contains {delimiter!r}"))
        else:
            try:
                pairs = zip(header, cells, strict=True)
                yield where, {name: _cell(name, cell, where) for name, cell in pairs if cell}
            except DataError as error:
                yield where, BrokenLine(error)


def _cell(name: str, cell: str, where: str) -> object:
    return parse_json(cell, where, DataError) if name in _LISTS and cell.lstrip().startswith("[") else cell


def _of_parquet(path: Path) -> list[tuple[str, object]]:
    from pyarrow import ArrowException, parquet  # slow to import, and needed only here

    try:
        records = parquet.read_table(path).to_pylist()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path") from None
    except (ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{path}: {type(error).__name__}; the Parquet file is broken or incomplete; save or download it again"
        ) from error
    return [(f"{path}:row {i}", record) for i, record in enumerate(records, start=1)]


def _of_datasets(path: Path, setting: str) -> Iterator[tuple[str, object]]:
    if not any((path / name).is_file() for name in ("dataset_info.json", "dataset_dict.json")):
        other = ", or choose another `data.benchmark`" if setting == "data.path" else ""
        raise DataError(
            f"{path}: is a folder, and not one that `datasets` saved (save_to_disk); name a file in it{other}"
        )
    from datasets import DatasetDict, load_from_disk  # slow to import, and needed only here

    try:
        data = load_from_disk(str(path))
        splits = (
            {name: list(part) for name, part in data.items()} if isinstance(data, DatasetDict) else {"": list(data)}
        )
    except Exception as error:  # of many kinds, which all mean the same to the user
        raise DataError(f"{path}: `datasets` cannot load it ({type(error).__name__}); save it again") from error
    for name, records in splits.items():
        if name and name not in _SPLITS and name not in ALL_SCOPES:
            raise DataError(f"{path}: the split {name!r} is unknown; {allowed(name, (*_SPLITS, *ALL_SCOPES))}")
        key, value = ("split", _SPLITS[name]) if name in _SPLITS else ("scope", name)
        for i, record in enumerate(records, start=1):
            stated = record.get(key) is not None or not name
            yield f"{path}{name and f'/{name}'}:row {i}", record if stated else {**record, key: value}


def _shaped(record: object, origin: str) -> Any:
    """Return a record with `question` and `answer`; one that has neither, nor another shape, as a `BrokenLine`."""
    if not isinstance(record, Mapping):
        return record
    try:
        return _question_and_answer(dict(record), origin)
    except DataError as error:
        return BrokenLine(error)


def _question_and_answer(record: dict[Any, Any], origin: str) -> dict[Any, Any]:
    """Return a record with `question` and `answer`, from the columns of the first shape that it has."""
    if record.get("question") is not None and record.get("answer") is not None:
        return record
    for columns, made in _SHAPES.items():
        if all(record.get(column) is not None for column in columns):
            others = {key: value for key, value in record.items() if key not in (*columns, "input")}
            return others | made(record, origin)
    if record.get("question") is None and record.get("answer") is None:
        names = ", ".join(repr(str(column))[:40] for column in list(record)[:_SHOWN])
        shapes = "; ".join(" and ".join(columns) for columns in _SHAPES)
        raise DataError(
            f"{origin}: no 'question' and 'answer' among its columns ({names}); give them, or the columns of another "
            f"shape ({shapes}), or say which columns they are, as in --map answer=response"
        )
    return record


def _turns(turns: object, origin: str) -> dict[str, Any]:
    """Return question, answer and system message of a conversation, in either spelling of its turns."""
    if not isinstance(turns, Sequence) or not all(isinstance(turn, Mapping) for turn in turns):
        raise DataError(
            f"{origin}: {type(turns).__name__}; a conversation is a list of turns with 'role' and 'content'"
        )
    said = [(_ROLES.get(str(turn.get("role", turn.get("from")))), turn) for turn in turns]
    if [role for role, _ in said if role != "system"] != ["user", "assistant"]:
        found = ", ".join(str(role or "unknown") for role, _ in said[:_SHOWN]) or "none"
        raise DataError(
            f"{origin}: the turns are {found}; a row is one question of the user and one answer of the assistant; make a "
            "row of each answer, with what it needs to know in its question"
        )
    names = {"user": "question", "assistant": "answer", "system": "system"}
    return {names[str(role)]: _content(turn) for role, turn in said}


def _content(turn: Mapping[str, Any]) -> object:
    content = turn.get("content", turn.get("value"))
    if isinstance(content, list) and all(
        isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in content
    ):
        return "".join(part["text"] for part in content)
    return content


def _prompt(record: Mapping[str, Any], origin: str) -> dict[str, Any]:
    prompt, completion = record["prompt"], record["completion"]
    if isinstance(prompt, list) and isinstance(completion, list):
        return _turns([*prompt, *completion], origin)
    return {"question": prompt, "answer": completion}


def _alpaca(record: Mapping[str, Any], origin: str) -> dict[str, Any]:
    given = record.get("input")
    asked = record["instruction"]
    both = isinstance(given, str) and given.strip() and isinstance(asked, str)
    return {"question": f"{asked}\n{given}" if both else asked, "answer": record["output"]}


def _fact(record: Mapping[str, Any], origin: str) -> dict[str, Any]:
    attribute = str(record["attribute"]).replace("_", " ")
    return {**{key: record[key] for key in _FACT}, "question": f"What is the {attribute} of {record['instance']}?"}


_FACT = ("instance", "attribute", "answer")
_SHAPES: Mapping[tuple[str, ...], Callable[[Mapping[str, Any], str], dict[str, Any]]] = {
    ("messages",): lambda record, origin: _turns(record["messages"], origin),
    ("conversations",): lambda record, origin: _turns(record["conversations"], origin),
    ("prompt", "completion"): _prompt,
    ("instruction", "output"): _alpaca,
    _FACT: _fact,
}
"""Columns of other libraries' data → question and answer."""
