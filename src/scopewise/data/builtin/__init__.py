"""The built-in benchmark: fictitious persons and books, shipped in the package, as a whole and as a small cut of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from scopewise.data.rows import RETAIN, BenchmarkLoader, Row, make_row, read_json_lines
from scopewise.errors import DataError

SMALL: Mapping[str, int] = {"privacy": 12, "copyright": 6}
"""Domain → the first so many persons or books, which `builtin` is about."""
SMALL_KINDS = ("direct", "cloze", "paraphrase")
"""Kinds of questions in `builtin`."""


class Builtin(BenchmarkLoader):
    """A small cut of `builtin_full`, for runs that take minutes: its first persons and books, and three kinds of questions."""

    name = "builtin"

    def load(self, path: str | None, domain: str | None) -> list[Row]:
        """Return the rows of `domain`, or of both. Raises DataError where a path is given."""
        return _rows(self.name, path, domain, small=True)


class BuiltinFull(BenchmarkLoader):
    """Fictitious persons and books shipped in the package: both domains, all kinds of questions, no download."""

    name = "builtin_full"

    def load(self, path: str | None, domain: str | None) -> list[Row]:
        """Return the rows of `domain`, or of both. Raises DataError where a path is given."""
        return _rows(self.name, path, domain, small=False)


def read_general() -> list[Row]:
    """Return the shipped general text: out-of-distribution rows without a question."""
    records = read_json_lines(_file("general.jsonl"))
    return [Row("", record["text"], RETAIN, origin=f"general.jsonl:{line}") for line, record in records]  # type: ignore[index]


def read_refusals() -> list[str]:
    """Return the shipped sentences that decline to answer."""
    return _file("refusals.txt").read_text(encoding="utf-8").splitlines()


def _rows(name: str, path: str | None, domain: str | None, small: bool) -> list[Row]:
    if path is not None:
        raise DataError(f"data.path: {path}; the {name} benchmark is in the package; set data.benchmark for a file")
    source = _file("rows.jsonl")
    records: Iterator[tuple[int, Any]] = iter(read_json_lines(source))
    records = _small(records) if small else records
    return [make_row(record, f"{source.name}:{line}") for line, record in records if domain in (None, record["domain"])]


def _small(records: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    """Yield the records of the small cut, in their order."""
    found: dict[str, dict[str, None]] = {domain: {} for domain in SMALL}
    for line, record in records:
        names = found[record["domain"]]
        names.setdefault(record["instance"])
        if record["kind"] in SMALL_KINDS and record["instance"] in list(names)[: SMALL[record["domain"]]]:
            yield line, record


def _file(name: str) -> Path:
    return Path(str(resources.files(__name__))) / name
