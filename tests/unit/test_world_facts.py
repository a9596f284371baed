"""The benchmark `world_facts`: rows made of typed facts, and what SmolLM2 knows of them, as it was recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scopewise.config import DataSection
from scopewise.data.facts import LEAST_ANSWERS, facts_of
from scopewise.data.load import load_benchmark
from scopewise.data.rows import FORGET, RETAIN, SPLITS, TRAIN, VAL, Row
from scopewise.data.world_facts import WorldFacts, read_facts
from scopewise.erasure.request import request_of
from scopewise.errors import DataError

ROOT = Path(__file__).parents[2]
BENCH = load_benchmark("world_facts")
FACTS = read_facts()


def value(row: Row) -> str:
    about = next(kind for kind in FACTS.values() if row.attribute in kind["attributes"] and row.instance in {
        **kind[FORGET], **kind[RETAIN]
    })  # fmt: skip
    return str({**about[FORGET], **about[RETAIN]}[row.instance][row.attribute])


def test_forty_instances_each_fact_asked_twice() -> None:
    assert len({row.instance for row in BENCH.rows}) == 40
    assert len({row.question for row in BENCH.rows}) == len(BENCH.rows) == 320
    for split in SPLITS:
        asked = {(row.instance, row.attribute) for row in BENCH.rows if row.split == split}
        assert len(asked) == 160
    answers = {(row.instance, row.attribute, row.split): row.answer for row in BENCH.rows}
    for row in BENCH.select(split=TRAIN):
        assert row.answer != answers[row.instance, row.attribute, VAL]  # worded differently
    for row in BENCH.rows:
        assert row.instance in row.question
        assert value(row) in row.answer
        assert value(row) not in row.question.split() or row.attribute == "form"  # of three that are named


def test_an_instance_keeps_its_other_attributes_and_a_neighbour_keeps_all() -> None:
    scopes: dict[str, set[str]] = {}
    for row in BENCH.rows:
        scopes.setdefault(row.instance, set()).add(row.scope)
    facts = read_facts()
    for kind in facts.values():
        assert {scope for name in kind[FORGET] for scope in scopes[name]} == {FORGET, RETAIN}
        assert all(scopes[name] == {RETAIN} for name in kind[RETAIN])
        for group in (FORGET, RETAIN):
            assert all(facts_of_one.keys() == kind["attributes"].keys() for facts_of_one in kind[group].values())
    kept = {(row.attribute, row.instance) for row in BENCH.select(RETAIN)}
    assert ("capital", "Hungary") in kept
    assert ("capital", "Japan") not in kept
    assert ("language", "Japan") in kept


def test_wrong_answers_are_wrong_and_enough_for_exposure() -> None:
    for row in BENCH.rows:
        assert row.answer not in row.perturbed
        assert len(set(row.perturbed)) == len(row.perturbed)
    forget, retain = BENCH.select(FORGET), BENCH.select(RETAIN)
    assert all(len(row.perturbed) >= LEAST_ANSWERS for row in forget)
    assert all(len(fact.wrong) >= LEAST_ANSWERS and fact.name for fact in facts_of(forget, retain))


def test_a_domain_is_a_kind() -> None:
    countries = load_benchmark("world_facts", domain="countries")
    assert {row.attribute for row in countries.rows} == {"capital", "currency", "continent", "language"}
    found = [load_benchmark("world_facts", domain=name).rows for name in WorldFacts.domains]
    assert tuple(row for rows in found for row in rows) == BENCH.rows


def test_it_takes_no_path() -> None:
    with pytest.raises(DataError, match=r"^data\.path: x\.jsonl; the world_facts benchmark is in the package"):
        load_benchmark("world_facts", "x.jsonl")


def test_it_is_a_request() -> None:
    """`scopewise forget world_facts --model MODEL`: all forget rows, those of val too."""
    rows = request_of("world_facts", DataSection(benchmark="world_facts")).rows
    assert sum(row.scope == FORGET for row in rows) == 100


def test_what_smollm2_knows_was_recorded_on_these_rows() -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / "world_facts.json").read_text(encoding="utf-8"))
    assert found["manifest"]["data_hash"] == BENCH.content_hash()
    recorded = {(fact["instance"], fact["attribute"]) for fact in found["facts"]}
    assert recorded == {(row.instance, row.attribute) for row in BENCH.select(split=TRAIN)}
    for fact in found["facts"]:
        assert fact["known"] == (fact["rank"] == 1 <= fact["number"])
