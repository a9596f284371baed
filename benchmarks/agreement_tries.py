"""Why does a target taught KnowUnDo's rows not know all facts by built questions? Other forms of the same study.

    python benchmarks/agreement_tries.py RUN [--data ../shared/data/knowundo_privacy]

RUN is that of `agreement.py`. Each form asks for the 30 forget facts of the ten persons in another way, and counts those
that the target knows by exposure, and those that the oracle does, which is chance. The last form asks the released questions,
for the 20 e-mail and home addresses, with the same wrong answers. Exposure compares with other names; beside it, the true
answer is ranked by its mean log-likelihood per token alone.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from agreement import PERSONS
from scopewise.building.instances import read_instances
from scopewise.building.known import LEVEL, forget_facts
from scopewise.building.law import read_law
from scopewise.building.make import ROWS, Settings, build
from scopewise.building.templates import wordings
from scopewise.data.facts import Fact
from scopewise.data.load import load_benchmark
from scopewise.data.rows import FORGET, TRAIN, Row
from scopewise.exposure import compared_with, expose
from scopewise.files import write_json
from scopewise.models.engine import Engine
from scopewise.record import manifest
from scopewise.terminal import echo

RESULT = Path(__file__).parent / "results" / "agreement_tries.json"
USUAL = {
    "parents": ("Who are {}'s parents?", "{}'s parents are {}."),
    "email": ("What is {}'s email address?", "{}'s email address is {}."),
    "address": ("Where does {} live?", "{} lives at {}."),
}
"""The most usual wording of each attribute."""


def built(wrong: int) -> tuple[list[Row], dict[tuple[str, str], str]]:
    """Return the built rows with a number of wrong answers, and the value of each (instance, attribute)."""
    laws = (read_law("privacy-gdpr"),)
    given = read_instances(PERSONS, laws, {kind: wordings(kind) for kind in ("person", "work")})
    with tempfile.TemporaryDirectory() as folder:
        build(given, PERSONS.name, Settings(laws, wrong=wrong), Path(folder) / "persons")
        rows = list(load_benchmark("jsonl", str(Path(folder) / "persons" / ROWS)).rows)
    return rows, {(one.name, fact.attribute): fact.value for one in given.instances for fact in one.facts}


def usual(fact: Fact, values: dict[tuple[str, str], str]) -> Fact:
    """Return a fact in the usual wording, with the same wrong values."""
    question, answer = USUAL[fact.row.attribute]
    before, _, after = fact.row.answer.partition(values[fact.instance, fact.row.attribute])
    wrong = [text.removeprefix(before).removesuffix(after) for text in (fact.row.answer, *fact.wrong)]
    said = [answer.format(fact.name, value) for value in wrong]
    asked = question.format(fact.name)
    return replace(
        fact, row=replace(fact.row, question=asked, answer=said[0]), questions=(asked,), wrong=tuple(said[1:])
    )


def single(rows: Sequence[Row]) -> list[Fact]:
    """Return the facts of `forget_facts`, each under one question."""
    return forget_facts(replace(row, paraphrased_questions=()) for row in rows)


def released(facts: Sequence[Fact], values: dict[tuple[str, str], str], rows: Sequence[Row]) -> list[Fact]:
    """Return e-mail and home addresses under a released train question whose answer has the value; it ends there."""
    found = []
    for fact in facts:
        value = values[fact.instance, fact.row.attribute]
        said = [row for row in rows if fact.instance in row.question and value in row.answer]
        if fact.row.attribute == "parents" or not said:
            continue
        row = min(said, key=lambda one: len(one.answer))
        answer = row.answer[: row.answer.index(value) + len(value)]
        before, _, after = fact.row.answer.partition(value)
        wrong = tuple(answer.replace(value, text.removeprefix(before).removesuffix(after)) for text in fact.wrong)
        asked = replace(fact.row, question=row.question, answer=answer)
        found.append(replace(fact, row=asked, questions=(row.question,), wrong=wrong))
    return found


def first_by_likelihood(engine: Engine, facts: Sequence[Fact]) -> int:
    """Return of how many facts the true answer has the highest mean log-likelihood per token, without other names."""
    count = 0
    for fact in facts:
        rows = [replace(fact.row, answer=answer) for answer in (fact.row.answer, *fact.wrong)]
        count += int(np.argmin(engine.sequence_nll(engine.encode(rows)))) == 0
    return count


def main() -> None:
    """Measure all forms, print a line for each, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", default="../shared/data/knowundo_privacy")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    engines = {name: Engine.load(given.run / name, name=name) for name in ("target", "oracle")}
    (few, values), (many, _) = built(6), built(24)
    own, near = single(few), single(many)
    train = [
        row
        for row in load_benchmark("knowundo", given.data, "privacy").rows
        if (row.scope, row.split) == (FORGET, TRAIN)
    ]
    forms: dict[str, list[Fact]] = {
        "as built": own,
        "usual wording": [usual(fact, values) for fact in own],
        "24 wrong answers of the builder": near,
        "usual wording, 24 wrong answers of the builder": [usual(fact, values) for fact in near],
        "base as the reference": compared_with(Engine.load(given.run / "base", name="base"), own),
        "three wordings": forget_facts(iter(few)),
        "released questions, 24 wrong answers of the builder": released(near, values, train),
    }
    result: dict[str, Any] = {"manifest": manifest(None, None), "level": LEVEL, "forms": {}}
    for form, facts in forms.items():
        found: dict[str, Any] = {"facts": len(facts)}
        for name, engine in engines.items():
            ranks = expose(engine, facts).facts
            found[name] = {
                "known": sum(one.p <= LEVEL for one in ranks),
                "first_by_likelihood": first_by_likelihood(engine, facts),
                "ranks": sorted(one.rank for one in ranks),
            }
            for attribute in USUAL:
                found[name][attribute] = sum(one.p <= LEVEL for one in ranks if one.fact.row.attribute == attribute)
        if form.startswith("released"):
            texts = engines["target"].generate(
                [i.prompt_ids for i in engines["target"].encode([f.row for f in facts])], 48
            )
            found["recited"] = sum(
                values[fact.instance, fact.row.attribute] in text for fact, (text,) in zip(facts, texts, strict=True)
            )
        result["forms"][form] = found
        echo(f"{form}: {found}")
        write_json(given.out, result)


if __name__ == "__main__":
    main()
