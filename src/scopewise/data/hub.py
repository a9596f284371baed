"""Tables of public benchmarks: from the hub, or from a folder that the hub's files were downloaded to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scopewise.data.rows import TRAIN, Row, unbroken
from scopewise.data.tables import read_records
from scopewise.errors import DataError

Record = tuple[str, Mapping[str, Any]]
"""Where a record stands (file and row), and its columns."""


@dataclass(frozen=True)
class Table:
    """One table of a benchmark.

    Attributes:
        repository: Its dataset on the hub; empty if it is not on the hub.
        config: Configuration of the dataset; empty for the only one.
        split: Split of the configuration.
        files: Its possible paths in a downloaded folder, without extension, the hub's path first.
        columns: Columns that every record has.
        obtain: How to obtain it if the hub's client cannot download it.
        optional: Whether a folder may lack it; metrics on it are then missing.
    """

    repository: str
    config: str
    split: str
    files: tuple[str, ...]
    columns: tuple[str, ...]
    obtain: str = ""
    optional: bool = False

    @property
    def title(self) -> str:
        """Its name in messages."""
        parts = [part for part in (self.config, self.split) if part]
        return f"{self.repository or 'table'} ({', '.join(parts)})"

    @property
    def advice(self) -> str:
        """What to download, and where to put it."""
        command = f"`hf download {self.repository} --repo-type dataset --local-dir FOLDER`"
        return f"download it, {self.obtain or command}, and set data.path=FOLDER"


_ENDINGS = (".jsonl", ".json", ".parquet")


def table_records(table: Table, path: str | None) -> list[Record]:
    """Return the records of a table from a folder, or from the hub if `path` is None.

    Raises:
        DataError: not found, broken, or without a column; the message says what to download and where to put it.
    """
    if path is None:
        return _checked(table, _from_hub(table))
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"{path}: no such folder; data.path names a folder with {table.title} in it; {table.advice}")
    found = next((files for stem in table.files if (files := _files(folder, stem))), None)
    if found is None:
        if table.optional:
            return []
        names = " or ".join(f"{stem}{ending}" for stem in table.files[:2] for ending in _ENDINGS)
        raise DataError(f"{path}: no file of {table.title} in it, such as {names}; {table.advice}")
    return _checked(table, [record for file in found for record in unbroken(read_records(file))])


def file_records(table: Table, file: Path) -> list[Record]:
    """Return the records of a table from one file; DataError if it is broken or a column is missing."""
    return _checked(table, unbroken(read_records(file)))


def text_pieces(text: str, words: int) -> list[str]:
    """Split a text into pieces of at most `words` words; only white space between pieces is lost."""
    found = re.findall(r"\S+\s*", text)
    return ["".join(found[i : i + words]).strip() for i in range(0, len(found), words)]


def text_rows(
    records: Sequence[Record],
    scope: str,
    domain: str,
    words: int | None = None,
    split: str = TRAIN,
    attribute: str = "",
) -> list[Row]:
    """Return rows of plain text: each record's `text`, whole or in pieces; a record's index is its instance."""
    rows = []
    for index, (origin, record) in enumerate(records):
        text = text_column(record, "text", origin)
        for number, piece in enumerate([text] if words is None else text_pieces(text, words)):
            where = f"{origin} piece {number}"
            rows.append(Row("", piece, scope, split, f"{scope} {index}", attribute, domain, origin=where))
    return rows


def text_column(record: Mapping[str, Any], column: str, origin: str) -> str:
    """Return a column that must be text and not empty; DataError otherwise."""
    value = record[column]
    if not isinstance(value, str) or not value.strip():
        what = "empty" if isinstance(value, str) else type(value).__name__
        raise DataError(f"{origin}: column {column!r} is {what}; it must be text; fix the file or download it again")
    return value


def joined(question: str, answer: str) -> str:
    """Return the answer with the space that separates it from the question, where neither has one."""
    apart = not question or question[-1].isspace() or answer[:1].isspace()
    return answer if apart else f" {answer}"


def _files(folder: Path, stem: str) -> list[Path]:
    for ending in _ENDINGS:
        whole = folder / f"{stem}{ending}"
        if whole.is_file():
            return [whole]
        shards = sorted(folder.glob(f"{stem}-[0-9]*-of-[0-9]*{ending}"))
        if shards:
            _all_there(shards)
            return shards
    return []


def _all_there(shards: Sequence[Path]) -> None:
    total = int(re.findall(r"-of-(\d+)", shards[0].name)[-1])
    if len(shards) != total:
        raise DataError(f"{shards[0].parent}: {len(shards)} of {total} files of this table; download the missing ones")


def _from_hub(table: Table) -> list[tuple[str, object]]:
    if not table.repository:
        raise DataError(f"data.path: none given, and the hub does not have this benchmark; {table.advice}")
    from datasets import load_dataset  # slow to import, and needed only here

    try:
        data = load_dataset(table.repository, name=table.config or None, split=table.split)
    except Exception as error:  # the hub client raises many kinds; all mean the same to the user
        raise DataError(f"{table.title}: the hub failed with {type(error).__name__}; {table.advice}") from error
    return [(f"{table.repository}/{table.config or table.split}[{i}]", record) for i, record in enumerate(data)]


def _checked(table: Table, records: Sequence[tuple[str, object]]) -> list[Record]:
    checked: list[Record] = []
    for origin, record in records:
        if isinstance(record, str) and table.columns == ("text",):  # muse_bench's own files are lists of texts
            record = {"text": record}
        if not isinstance(record, Mapping):
            raise DataError(f"{origin}: {type(record).__name__}; a record of {table.title} is an object")
        missing = [column for column in table.columns if column not in record]
        if missing:
            raise DataError(
                f"{origin}: no column {missing[0]!r}; {table.title} has {', '.join(table.columns)}, this record has "
                f"{', '.join(map(str, record))}; name the released files in data.path"
            )
        checked.append((origin, record))
    if not checked:
        raise DataError(f"{table.title}: no record in it; {table.advice}")
    return checked
