"""Rows in a CSV file."""

from __future__ import annotations

import csv
import io
from typing import ClassVar

from scopewise.data.rows import BenchmarkLoader, Row, make_row
from scopewise.documents import read_text
from scopewise.errors import DataError


class CSV(BenchmarkLoader):
    """A CSV file with a header: question, answer, scope, and split where it has one."""

    name: ClassVar[str] = "csv"

    def load(self, path: str | None, domain: str | None) -> list[Row]:
        """Read `path`. Raises DataError with file and line."""
        if path is None:
            raise DataError("data.path: none given; the csv benchmark reads a CSV file; set data.path")
        fixed = {} if domain is None else {"domain": domain}
        reader = csv.DictReader(io.StringIO(read_text(path, DataError)))
        rows = []
        for record in reader:
            where = f"{path}:{reader.line_num}"
            if None in record or None in record.values():
                raise DataError(f"{where}: not as many cells as the header has; add or remove commas, or quote them")
            rows.append(make_row({key: cell for key, cell in record.items() if cell}, where, **fixed))
        return rows
