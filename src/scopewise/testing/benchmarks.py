"""What every benchmark loader must satisfy, whichever it is."""

from __future__ import annotations

from collections.abc import Mapping

from scopewise.config import DataSection, EvaluateSection
from scopewise.data.load import load_benchmark
from scopewise.data.rows import Benchmark, BenchmarkLoader
from scopewise.section import make_section
from scopewise.testing.world import Property, check


def _loaded(source: tuple[str, str | None]) -> Benchmark:
    name, path = source
    return load_benchmark(name, path)


def same_rows(loader: BenchmarkLoader, source: tuple[str, str | None]) -> None:
    """Read twice, the rows are the same, and each says where it came from."""
    first, again = _loaded(source), _loaded(source)
    check(first.content_hash() == again.content_hash(), "other rows when read again")
    check(all(row.origin for row in first.rows), "a row does not say where it came from (`origin`)")


def settings_fit(loader: BenchmarkLoader, source: tuple[str, str | None]) -> None:
    """Its own settings are settings of a run file."""
    make_section(DataSection, loader.data, "data")
    make_section(EvaluateSection, loader.suite, "evaluate")


PROPERTIES: Mapping[str, Property] = {
    "the same rows each time, with their origins": same_rows,
    "its settings are those of a run file": settings_fit,
}
"""Name → property of a benchmark."""
