"""Does the target know the facts that must go, and did the base not? By exposure, and by the loss of the true answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from scopewise.building.layouts import read_rows
from scopewise.data.facts import Fact, facts_of
from scopewise.data.rows import FORGET, RETAIN, TRAIN, Row
from scopewise.errors import DataError
from scopewise.exposure import expose
from scopewise.files import writing_lines
from scopewise.models.engine import Engine
from scopewise.ranks import Ranked

FILE = "known.jsonl"
LEVEL = 0.05
"""Most probability of a rank by chance, at which a fact counts as known."""
MOST = 100
"""Facts that are measured; of more, every so many."""


def known(rows: Path, models: Sequence[str], out: Path, seed: int = 0) -> dict[str, Any]:
    """Measure models on the forget facts of a benchmark, and write a line for each fact.

    Args:
        rows: The file of rows.
        models: Folders or hub names: the target, then the base if there is one.
        out: Folder for the lines.
        seed: Of wrong answers and ties.

    Returns:
        What the datasheet says: the number of facts, and of each model how many it knows and the mean loss.

    Raises:
        DataError: no forget row of train.
        ModelError: a model cannot be loaded.
    """
    facts = forget_facts(read_rows(rows), seed)
    ranked, losses = list[Sequence[Ranked]](), list[list[float]]()
    for path in models:
        engine = Engine.load(path, name=Path(path).name)
        ranked.append(expose(engine, facts, seed=seed).facts)
        losses.append(engine.sequence_nll(engine.encode([fact.row for fact in facts], over_length="drop"), "loss"))
    with writing_lines(out / FILE) as write:
        for number, fact in enumerate(facts):
            of_models = [
                {
                    "model": path,
                    "rank": ranks[number].rank,
                    "of": ranks[number].number,
                    "known": ranks[number].p <= LEVEL,
                }
                for path, ranks in zip(models, ranked, strict=True)
            ]
            line = {"instance": fact.instance, "attribute": fact.row.attribute, "models": of_models}
            write(json.dumps(line, ensure_ascii=False) + "\n")
    return {
        "facts": len(facts),
        "models": [
            {
                "model": path,
                "known": sum(one.p <= LEVEL for one in ranks),
                "nll": round(sum(loss) / max(1, len(loss)), 4),
            }
            for path, ranks, loss in zip(models, ranked, losses, strict=True)
        ],
    }


def forget_facts(rows: Iterator[Row], seed: int = 0, most: int = MOST) -> list[Fact]:
    """Return the facts to measure: of each instance and attribute the first forget row of train, under all its questions.

    Raises:
        DataError: there is none.
    """
    first, retain = dict[tuple[str, str], Row](), dict[tuple[str, str], Row]()
    for row in rows:
        if row.split == TRAIN and row.scope in (FORGET, RETAIN):
            (first if row.scope == FORGET else retain).setdefault((row.instance, row.attribute), row)
    if not first:
        raise DataError(
            "--check-model: no forget row of train; a model is measured on what must go; keep the kind 'direct'"
        )
    forget = list(first.values())
    step = -(-len(forget) // most)
    measured = forget[::step]
    names = {row.instance for row in measured}
    return facts_of(measured, [row for row in retain.values() if row.instance in names], seed)
