"""Your own data: one JSON object per line."""

from __future__ import annotations

from pathlib import Path

from scopewise.data.rows import BenchmarkLoader, Row, make_rows, record_lines
from scopewise.errors import DataError


class JsonLines(BenchmarkLoader):
    """Your own file: one {"question", "answer", "scope", "split"?, "instance"?, "attribute"?} per line."""

    name = "jsonl"

    def load(self, path: str | None, domain: str | None) -> list[Row]:
        """Read `path`; rows without `split` are train rows. Raises DataError with file and line."""
        if path is None:
            raise DataError("data.path: none given; the jsonl benchmark reads a file of JSON lines; set data.path")
        fixed = {} if domain is None else {"domain": domain}
        return make_rows(record_lines(Path(path)), **fixed)
