"""Your own data: one file, or a folder that `datasets` saved."""

from __future__ import annotations

from typing import Any

from scopewise.data.rows import BenchmarkLoader, Row
from scopewise.data.tables import read_table
from scopewise.errors import DataError


class JsonLines(BenchmarkLoader):
    """Your own file: one {"question", "answer", "scope", "split"?, "instance"?, "attribute"?} per row."""

    name = "jsonl"

    def load(self, path: str | None, domain: str | None) -> list[Row]:
        """Read `path` (see `read_table`); rows without `split` are train rows. Raises DataError with file and row."""
        if path is None:
            raise DataError("data.path: none given; the jsonl benchmark reads a file of rows; set data.path")
        fixed: dict[str, Any] = {} if domain is None else {"domain": domain}
        return read_table(path, scope=None, **fixed)
