"""Other layouts of a built benchmark: KnowUnDo's, TOFU's, OpenUnlearning's, and a task for lm-evaluation-harness."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from scopewise.data.rows import FORGET, NEIGHBOR, RETAIN, SPLITS, TRAIN, VAL, Row, make_row
from scopewise.data.world_facts import WorldFacts
from scopewise.documents import parse_json
from scopewise.errors import DataError
from scopewise.files import write_text, writing_lines

Rows = Callable[[], Iterable[Row]]
"""Iterates over the rows anew at each call, so that none of the layouts holds them."""

_UNLEARN = {FORGET: "unlearn", RETAIN: "retention"}


def write_layout(layout: str, rows: Rows, folder: Path, name: str, source: Path) -> list[Path]:
    """Write the rows in another layout, and return the files.

    Args:
        layout: One of `LAYOUTS`.
        rows: Iterates over them.
        folder: To write into.
        name: Of the benchmark.
        source: The file of rows, for the harness.
    """
    return LAYOUTS[layout](rows, folder, re.sub(r"\W+", "_", name) or "benchmark", source)


def _knowundo(rows: Rows, folder: Path, name: str, source: Path) -> list[Path]:
    """Write the hub's layout: a folder for each domain, `[{"train": […], "val": […]}]` for each scope."""
    files = list[Path]()
    for domain in sorted({row.domain for row in rows()}):
        for scope, stem in _UNLEARN.items():
            files.append(folder / domain / f"{stem}.json")
            with writing_lines(files[-1]) as write:
                for before, split in zip(("[{", ", "), SPLITS, strict=True):
                    write(f'{before}"{split}": [')
                    found = (row for row in rows() if (row.domain, row.scope, row.split) == (domain, scope, split))
                    for number, row in enumerate(found):
                        record = {"text": row.question, "labels": row.answer}
                        write((",\n" if number else "\n") + json.dumps(record, ensure_ascii=False))
                    write("\n]")
                write("}]\n")
    return files


def _tofu(rows: Rows, folder: Path, name: str, source: Path) -> list[Path]:
    """Write the hub's layout of TOFU, with the names of `forget10`, whatever the share of the forget rows is.

    `_perturbed` sets have the train questions that have a paraphrased answer. Well-known persons are `real_authors`, and
    well-known works `world_facts`. If the benchmark has neighbours of one kind only, the other set has scientists or countries
    of the benchmark `world_facts`, since TOFU's model utility needs all three.
    """
    kinds = {row.domain for row in rows() if row.scope == NEIGHBOR}
    files: dict[str, Callable[[Row], bool]] = {
        "full": lambda row: row.scope in _UNLEARN and row.split == TRAIN,
        "forget10": lambda row: (row.scope, row.split) == (FORGET, TRAIN),
        "retain90": lambda row: (row.scope, row.split) == (RETAIN, TRAIN),
        "forget10_perturbed": lambda row: (row.scope, row.split) == (FORGET, TRAIN) and bool(row.paraphrase),
        "retain_perturbed": lambda row: (row.scope, row.split) == (RETAIN, TRAIN) and bool(row.paraphrase),
        "real_authors_perturbed": lambda row: row.scope == NEIGHBOR and row.domain == "privacy",
        "world_facts_perturbed": lambda row: row.scope == NEIGHBOR and row.domain == "copyright",
    }
    more = {
        stem: [row for row in WorldFacts().load(None, facts) if row.split == VAL]
        for stem, domain, facts in (
            ("real_authors_perturbed", "privacy", "scientists"),
            ("world_facts_perturbed", "copyright", "countries"),
        )
        if domain not in kinds
    }
    return _write_sets(rows, files, folder, ".json", more)


def _open_unlearning(rows: Rows, folder: Path, name: str, source: Path) -> list[Path]:
    """Write `data/NAME/*.jsonl` and `configs/data/datasets/NAME_QA_*.yaml`, to be copied into a checkout of OpenUnlearning."""
    files: dict[str, Callable[[Row], bool]] = {
        f"{scope}{'' if split == TRAIN else '_val'}": _in(scope, split) for scope in _UNLEARN for split in SPLITS
    }
    files["full"] = lambda row: row.scope in _UNLEARN
    written = _write_sets(rows, files, folder / "data" / name, ".jsonl")
    for stem in files:
        title = f"{name}_QA_{stem}"
        text = (
            f"{title}:\n  handler: QADataset\n  args:\n    hf_args:\n      path: json\n"
            f"      data_files: data/{name}/{stem}.jsonl\n      split: train\n"
            "    question_key: question\n    answer_key: answer\n    max_length: 512\n"
        )
        written.append(folder / "configs" / "data" / "datasets" / f"{title}.yaml")
        write_text(written[-1], text)
    return written


def _lm_eval(rows: Rows, folder: Path, name: str, source: Path) -> list[Path]:
    """Write a task of lm-evaluation-harness, with the metrics of `scopewise evaluate` on the val rows."""
    text = (
        f"task: {name}\nclass: !function scopewise.ability.scope_task.ScopeTask\nmetadata:\n  version: 1.0\n"
        f"  benchmark: jsonl\n  path: {json.dumps(str(source.absolute()), ensure_ascii=False)}\n"
        f"  split: {VAL}\n  max_new_tokens: 64\n"
    )
    write_text(folder / f"{name}.yaml", text)
    return [folder / f"{name}.yaml"]


LAYOUTS: Mapping[str, Callable[[Rows, Path, str, Path], list[Path]]] = {
    "knowundo": _knowundo,
    "tofu": _tofu,
    "open_unlearning": _open_unlearning,
    "lm_eval": _lm_eval,
}


def _in(scope: str, split: str) -> Callable[[Row], bool]:
    return lambda row: (row.scope, row.split) == (scope, split)


def _write_sets(
    rows: Rows,
    files: Mapping[str, Callable[[Row], bool]],
    folder: Path,
    ending: str,
    more: Mapping[str, Sequence[Row]] | None = None,
) -> list[Path]:
    """Write for each file the rows that it takes, then those that it has in `more`, and return the files."""
    with ExitStack() as stack:
        lines = {stem: stack.enter_context(writing_lines(folder / f"{stem}{ending}")) for stem in files}
        for row in rows():
            text = json.dumps(_columns(row), ensure_ascii=False) + "\n"
            for stem, takes in files.items():
                if takes(row):
                    lines[stem](text)
        for stem, others in (more or {}).items():
            for row in others:
                lines[stem](json.dumps(_columns(row), ensure_ascii=False) + "\n")
    return [folder / f"{stem}{ending}" for stem in files]


def _columns(row: Row) -> dict[str, Any]:
    """Return the columns of TOFU, which OpenUnlearning reads as well; those of a file are the same in each line."""
    asked = row.paraphrased_questions
    return {
        "question": row.question,
        "answer": row.answer,
        "paraphrased_answer": row.paraphrase or row.answer,
        "perturbed_answer": list(row.perturbed),
        "paraphrased_question": asked[0] if asked else row.question,
    }


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file that `scopewise build` wrote, one at a time. Raises DataError if one is wrong."""
    for number, line in numbered_lines(path):
        yield make_row(parse_json(line, f"{path}:{number}", DataError), f"{path}:{number}")


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file of a benchmark with their numbers, from 1. Raises DataError if it cannot be read."""
    try:
        with open(path, encoding="utf-8") as file:
            yield from enumerate(file, 1)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: cannot be read ({type(error).__name__}); build the benchmark again, with --overwrite"
        ) from None
