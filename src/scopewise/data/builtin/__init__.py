"""The built-in benchmark: fictitious persons and books, both domains, shipped in the package (made by `make.py`)."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from scopewise.data.rows import RETAIN, BenchmarkLoader, Row, make_row, read_json_lines
from scopewise.errors import DataError


class Builtin(BenchmarkLoader):
    """Fictitious persons and books shipped in the package: both domains, no download."""

    name = "builtin"

    def load(self, path: str | None, domain: str | None) -> list[Row]:
        """Return the shipped rows of `domain`, or of both. Raises DataError where a path is given."""
        if path is not None:
            raise DataError(
                f"data.path: {path}; the builtin benchmark is in the package; set data.benchmark for a file"
            )
        source = _file("rows.jsonl")
        rows = [make_row(record, f"{source.name}:{line}") for line, record in read_json_lines(source)]
        return [row for row in rows if domain in (None, row.domain)]


def read_general() -> list[Row]:
    """Return the shipped general text: out-of-distribution rows without a question."""
    records = read_json_lines(_file("general.jsonl"))
    return [Row("", record["text"], RETAIN, origin=f"general.jsonl:{line}") for line, record in records]  # type: ignore[index]


def read_refusals() -> list[str]:
    """Return the shipped sentences that decline to answer."""
    return _file("refusals.txt").read_text(encoding="utf-8").splitlines()


def _file(name: str) -> Path:
    return Path(str(resources.files(__name__))) / name
