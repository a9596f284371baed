"""The rows of a deletion request of one person: no retain row repeats what must go."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from loading import module_of
from scopewise import cli
from scopewise.building.datasheet import read_datasheet
from scopewise.building.review import merge, sampled, write_review
from scopewise.data.crossed import plain
from scopewise.data.load import load_benchmark
from scopewise.data.rows import FORGET, RETAIN

module_of(Path(__file__).parents[2] / "docs" / "make_cli.py").commands()

PERSONS = [
    {"name": "Yuki Tanabe", "spouse": "Jo Marsh", "address": "5 Willow Bank, Veld", "genre": "fables", "born": "1971"},
    {
        "name": "Jo Marsh",
        "email": "jo.marsh@mail.example",
        "address": "5 Willow Bank, Veld",
        "genre": "odes",
        "born": "1970",
    },
    {
        "name": "Bo Rask",
        "email": "bo@post.example",
        "address": "9 Long Row, Ormsk",
        "genre": "sea stories",
        "born": "1980",
    },
]


@pytest.fixture
def built(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Path:
    (tmp_path / "in.yaml").write_text(yaml.safe_dump(PERSONS, sort_keys=False))
    names = [text for one in PERSONS for text in ("--request", str(one["name"]))]
    with caplog.at_level(logging.WARNING, "scopewise"):
        done = CliRunner().invoke(cli.app, ["build", str(tmp_path / "in.yaml"), "--out", str(tmp_path / "out"), *names])
    assert done.exit_code == 0, done.output
    return tmp_path / "out"


def rows_of(folder: Path, number: int) -> Any:
    return load_benchmark("jsonl", str(folder / "requests" / f"{number}.jsonl")).rows


def test_a_row_by_way_of_another_person_is_forgotten(built: Path) -> None:
    """Rows about Yuki ask for her spouse's address and e-mail address; what he writes is public, and Yuki's link stays hers."""
    rows = rows_of(built, 2)
    linked = [row for row in rows if row.kind == "multi-hop" and row.instance == "Yuki Tanabe"]
    scopes = {row.attribute: row.scope for row in linked}
    assert scopes == {"email": FORGET, "address": FORGET, "genre": RETAIN, "born": RETAIN}
    assert all("marriage partner of Yuki Tanabe" in row.question for row in linked)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_no_retain_row_repeats_a_value_that_must_go(built: Path, number: int) -> None:
    """They share a home; that Yuki is married to Jo is no fact of Jo's rows unless they name her."""
    person = PERSONS[number - 1]
    values = [plain(str(person[key])) for key in ("email", "address") if key in person]
    rows = rows_of(built, number)
    kept = [row for row in rows if row.scope == RETAIN]
    assert not [row for row in kept if any(value in plain(f"{row.question} {row.answer}") for value in values)]
    assert {row.instance for row in kept} == {str(one["name"]) for one in PERSONS}
    if number == 1:
        assert not [
            row for row in kept if "Jo Marsh" in row.question + row.answer and "Yuki" in row.question + row.answer
        ]
        assert any("Jo Marsh writes odes" in row.answer for row in kept)
    forget = {row.instance for row in rows if row.scope == FORGET}
    assert forget == {str(person["name"])} | ({"Yuki Tanabe"} if number == 2 else set())


def test_what_is_left_out_is_counted(built: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Every row of both scopes but multiple choice is in the request or counted as left out; a warning says so."""
    every = [r for r in load_benchmark("jsonl", str(built / "rows.jsonl")).rows if r.scope in (FORGET, RETAIN)]
    said_so = [record.getMessage() for record in caplog.get_records("setup")]
    every = [row for row in every if row.kind != "multiple-choice"]
    for number, said in enumerate(read_datasheet(built)["requests"], 1):
        rows = rows_of(built, number)
        assert (said[FORGET], said[RETAIN]) == tuple(sum(r.scope == scope for r in rows) for scope in (FORGET, RETAIN))
        assert said["forget"] + said["retain"] + said["shared"] == len(every)
        assert (said["shared"] > 0) is (number != 3)
        warned = [m for m in said_so if m.startswith(str(built / "requests" / f"{number}.jsonl"))]
        assert [f": {said['shared']} rows" in message for message in warned] == [True] * (number != 3)
    assert "Deletion requests" in (built / "DATASHEET.md").read_text()


def test_a_review_counts_anew_what_repeats_a_value(built: Path) -> None:
    """Of the rows that are not in Yuki's request, one is refused; another refused row is a retain row of the request."""
    before = read_datasheet(built)["requests"][0]
    asked = {row.question for row in rows_of(built, 1)}
    shown = [one for one in sampled(built, None) if one.kind != "multiple-choice" and one.split == "val"]
    left_out = next(one for one in shown if one.question not in asked)
    kept = next(one for one in shown if one.question in asked and one.scope == RETAIN)
    write_review(built / "review.csv", [replace(one, verdict="no") for one in (left_out, kept)])
    after = merge(built, built / "review.csv")["requests"][0]
    assert after == {**before, "retain": before["retain"] - 1, "shared": before["shared"] - 1}
    assert f"| {after['forget']} | {after['retain']} | {after['shared']} |" in (built / "DATASHEET.md").read_text()
