"""`load_benchmark`: from a name to checked rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from scopewise import registry
from scopewise.config import EvaluateSection, RunConfig
from scopewise.data.builtin import read_general
from scopewise.data.instances import first_instances
from scopewise.data.rows import RETAIN, Benchmark, BrokenLine, Row, each_row, record_lines
from scopewise.documents import read_text
from scopewise.errors import DataError
from scopewise.section import SectionType


def load_benchmark(
    name: str = "builtin",
    path: str | None = None,
    domain: str | None = None,
    general: str | None = None,
    instances: int | None = None,
) -> Benchmark:
    """Load a benchmark and check it.

    Args:
        name: One of `scopewise list benchmarks`.
        path: Local file or folder; None takes the benchmark's own source (shipped, or the hub).
        domain: A part of the benchmark, such as `privacy` or `copyright` of KnowUnDo or `forget01` of TOFU; None for the
            benchmark's default (docs/benchmarks.md), for KnowUnDo every domain of the source.
        general: Out-of-distribution text: a `.txt` file (paragraphs, in rows of at most 50 words) or a `.jsonl` file
            of `{"text": …}`; None takes the text shipped with the package.
        instances: Keep only the rows about this many instances of each scope, as `first_instances` does; None for all.

    Returns:
        The checked benchmark: rows of both scopes, and general text.

    Raises:
        DataError: bad input; one sentence with file and line.
        ConfigError: no benchmark of that name.
    """
    loader = registry.lookup("benchmarks", name)()
    if domain is not None and loader.domains and domain not in loader.domains:
        raise DataError(f"data.domain: {domain!r}; of {name} {registry.allowed(domain, loader.domains)}")
    rows = loader.load(path, domain)
    if instances is not None:
        rows = first_instances(rows, instances)
    text = read_general() if general is None else _read_text_rows(Path(general))
    return Benchmark(registry.canonical("benchmarks", name), tuple(rows), tuple(text), loader.taught).check()


def check_splits(benchmark: Benchmark, settings: EvaluateSection) -> None:
    """Raise DataError if the benchmark has no row in the splits to be evaluated."""
    asked = dict.fromkeys((*settings.splits, *settings.direct_splits))
    present = dict.fromkeys(row.split for row in benchmark.rows)
    if settings.metrics and asked and not asked.keys() & present.keys():
        raise DataError(
            f"evaluate.splits: {', '.join(asked)}; {benchmark.name} has rows of {', '.join(present) or 'no split'}; "
            "measure a split that it has, or give rows of this one"
        )


def with_suite(config: RunConfig) -> RunConfig:
    """Return the run file with the benchmark's own prompt format and metrics as defaults."""
    loader = registry.lookup("benchmarks", config.data.benchmark)
    data = _filled(config.data, loader.data)
    evaluate = _filled(config.evaluate, loader.suite)
    return config.model_copy(update={"data": data, "evaluate": evaluate})


def _filled(section: SectionType, own: Mapping[str, Any]) -> SectionType:
    """Return a section with a benchmark's settings as defaults for fields that the run file leaves out."""
    checked = type(section).model_validate(own)
    given = section.model_fields_set
    return section.model_copy(update={key: getattr(checked, key) for key in own if key not in given})


def general_rows(data: str | Path | Iterable[object]) -> list[Row]:
    """Return general text as rows without a question, from a path, dicts or rows.

    Args:
        data: A path as `data.general` takes it, or an iterable of `Row`, or of dicts with `text` (or `answer`).

    Raises:
        DataError: no text, or an entry without one.
    """
    if isinstance(data, str | Path):
        return _read_text_rows(Path(data))
    rows = []
    for i, record in enumerate(data):
        text = record.get("text", record.get("answer")) if isinstance(record, Mapping) else None
        if isinstance(record, Row):
            rows.append(record)
        elif isinstance(text, str) and text.strip():
            rows.append(Row("", text, RETAIN, origin=f"general[{i}]"))
        else:
            raise DataError(
                f"general[{i}]: {type(record).__name__}; each entry is an object with a 'text' that is not empty"
            )
    if not rows:
        raise DataError("general: no text; give at least one, or None for the text shipped with the package")
    return rows


def _read_text_rows(path: Path) -> list[Row]:
    if path.suffix == ".jsonl":
        texts = each_row(record_lines(path, "data.general"), _text_of)
    else:
        # Short lines are headings (wikitext), too short to learn from; long lines become several rows.
        lines = [line.split() for line in read_text(path, DataError, "data.general").split("\n")]
        texts = [" ".join(words[i : i + 50]) for words in lines for i in range(0, len(words) - 9, 50)]
    if not texts:
        raise DataError(f"{path}: no paragraph of ten words or more; data.general needs running text")
    return [Row("", text, RETAIN, origin=f"{path}[{i}]") for i, text in enumerate(texts)]


def _text_of(origin: str, record: object) -> str:
    if isinstance(record, BrokenLine):
        raise record.error
    text = record.get("text") if isinstance(record, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise DataError(f'{origin}: needs a field "text" that is a text and not empty')
    return text
