"""`load_benchmark`: from a name to checked rows."""

from __future__ import annotations

from pathlib import Path

from scopewise import registry
from scopewise.config import RunConfig
from scopewise.data.builtin import read_general
from scopewise.data.rows import RETAIN, Benchmark, Row, read_json_lines, read_text
from scopewise.errors import DataError


def load_benchmark(
    name: str = "builtin", path: str | None = None, domain: str | None = None, general: str | None = None
) -> Benchmark:
    """Load a benchmark and check it.

    Args:
        name: One of `scopewise list benchmarks`.
        path: Local file or folder; None takes the benchmark's own source (shipped, or the hub).
        domain: `privacy` or `copyright`; None takes every domain the source has.
        general: Out-of-distribution text: a `.txt` file (paragraphs, in rows of at most 50 words) or a `.jsonl` file
            of `{"text": …}`; None takes the text shipped with the package.

    Returns:
        The checked benchmark: rows of both scopes, and general text.

    Raises:
        DataError: bad input; one sentence with file and line.
        ConfigError: no benchmark of that name.
    """
    loader = registry.lookup("benchmarks", name)()
    if domain is not None and domain not in loader.domains:
        raise DataError(f"data.domain: {domain!r}; {name} has {' and '.join(loader.domains)}")
    rows = loader.load(path, domain)
    text = read_general() if general is None else _read_text_rows(Path(general))
    return Benchmark(registry.canonical("benchmarks", name), tuple(rows), tuple(text), loader.taught).check()


def with_suite(config: RunConfig) -> RunConfig:
    """Return the run file with the benchmark's own suite of measures where it does not say what to measure."""
    suite = registry.lookup("benchmarks", config.data.benchmark).suite
    given = config.evaluate.model_fields_set
    changes = {key: value for key, value in suite.items() if key not in given}
    return config.model_copy(update={"evaluate": config.evaluate.model_copy(update=changes)}) if changes else config


def _read_text_rows(path: Path) -> list[Row]:
    if path.suffix == ".jsonl":
        texts = []
        for line, record in read_json_lines(path):
            if not isinstance(record, dict) or not str(record.get("text", "")).strip():
                raise DataError(f'{path}:{line}: needs a field "text" that is not empty')
            texts.append(str(record["text"]))
    else:
        # Short lines are headings (wikitext) and too little text to learn from; long ones become several rows.
        lines = [line.split() for line in read_text(path).split("\n")]
        texts = [" ".join(words[i : i + 50]) for words in lines for i in range(0, len(words) - 9, 50)]
    if not texts:
        raise DataError(f"{path}: no paragraph of ten words or more; data.general needs running text")
    return [Row("", text, RETAIN, origin=f"{path}[{i}]") for i, text in enumerate(texts)]
