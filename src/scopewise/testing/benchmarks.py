"""Properties of every benchmark loader."""

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
    """Loading twice gives the same rows, and each row has its location."""
    first, again = _loaded(source), _loaded(source)
    check(first.content_hash() == again.content_hash(), "other rows when read again")
    check(all(row.origin for row in first.rows), "a row does not say where it came from (`origin`)")


def settings_fit(loader: BenchmarkLoader, source: tuple[str, str | None]) -> None:
    """The settings that the benchmark brings are valid in a run file."""
    make_section(DataSection, loader.data, "data")
    make_section(EvaluateSection, loader.suite, "evaluate")


PROPERTIES: Mapping[str, Property] = {
    "the same rows each time, with their origins": same_rows,
    "its settings are those of a run file": settings_fit,
}
"""Name → property of a benchmark."""
