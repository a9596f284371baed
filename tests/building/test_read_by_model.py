"""Rows that a model reads with the fact as context."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from asked import teach, untaught
from loading import module_of
from scopewise import cli
from scopewise.building.checks import ENTAILED, FOUND
from scopewise.building.instances import Instance, read_instances
from scopewise.building.law import read_law
from scopewise.building.read_by_model import Read, Statements, is_entailed, read_by_model
from scopewise.building.templates import wordings
from scopewise.data.load import load_benchmark
from scopewise.data.rows import FORGET, RETAIN, TRAIN, Row

ROOT = Path(__file__).parents[2]
module_of(ROOT / "docs" / "make_cli.py").commands()
PERSONS = """\
- {name: Ada Bell, spouse: Bo Rask, address: "3 Mill Lane, Ormsk", genre: odes, born: "1971"}
- {name: Bo Rask, address: "3 Mill Lane, Ormsk", email: bo@post.example, genre: sea stories, born: "1980"}
- {name: Cy Dee, address: "9 Long Row, Veld", email: cy@mail.example, genre: riddles, born: "1975"}
"""


@pytest.fixture
def built(tmp_path: Path) -> tuple[Path, tuple[Instance, ...], tuple[Row, ...]]:
    (tmp_path / "in.yaml").write_text(PERSONS)
    done = CliRunner().invoke(cli.app, ["build", str(tmp_path / "in.yaml"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    shipped = {kind: wordings(kind) for kind in ("person", "work")}
    instances = read_instances(tmp_path / "in.yaml", [read_law("privacy-gdpr")], shipped).instances
    return tmp_path / "out", instances, load_benchmark("jsonl", str(tmp_path / "out" / "rows.jsonl")).rows


def test_what_must_be_known_to_answer_a_row(built: tuple[Path, tuple[Instance, ...], tuple[Row, ...]]) -> None:
    """The value of each row is in its context, which for a link is about two persons; the forget facts have no retain value."""
    _, instances, rows = built
    said = Statements(instances)
    ada = {(row.kind, row.attribute): row for row in rows if row.instance == "Ada Bell"}
    assert said.needed(ada["direct", "address"]) == "The home address of Ada Bell is 3 Mill Lane, Ormsk."
    assert "A. Bell is Ada Bell." in said.needed(ada["alias", "genre"])
    assert "1971" in said.needed(ada["one-hop", "genre"])
    assert {"Bo Rask", "bo@post.example"} <= {
        word for word in ("Bo Rask", "bo@post.example") if word in said.needed(ada["multi-hop", "email"])
    }
    assert "Bo Rask is 3 Mill Lane" in said.needed(ada["shared-fact", "address"])
    assert "odes" not in said.to_forget(ada["direct", "genre"])
    assert "3 Mill Lane" in said.to_forget(ada["direct", "genre"])


def test_entailment_by_hand() -> None:
    """The context makes the answer first and raises its odds by e^3.1 > 20 against the other one; e^2.9 is too little."""
    alone = Read([-10.0, -9.0], [2, 2])
    assert is_entailed(Read([-6.0, -8.1], [2, 2]), alone)
    assert not is_entailed(Read([-6.0, -7.9], [2, 2]), alone)
    assert not is_entailed(Read([-6.0, -5.0], [2, 2]), Read([-20.0, -5.0], [2, 2]))  # still not the first one
    assert not is_entailed(Read([-1.0, -9.0], [2, 2]), Read([-5.0, -6.0], [2, 2]))  # the first one without it
    assert Read([-6.0, -5.0], [4, 2]).is_first  # -1.5 and -2.5 nats a token
    assert math.log(20) < 3.1


@pytest.mark.slow
def test_a_model_marks_the_rows_whose_answer_it_does_not_find(
    built: tuple[Path, tuple[Instance, ...], tuple[Row, ...]], tmp_path: Path
) -> None:
    """A tiny model was taught to say, given the facts, the true answers of Ada and Bo, and wrong ones of Cy.

    It was also taught that Ada's genre follows from what must go, and to say any other one without.
    """
    folder, instances, rows = built
    said = Statements(instances)
    direct = [row for row in rows if row.kind == "direct" and row.split == TRAIN and row.scope in (FORGET, RETAIN)]
    taught = [
        replace(
            row,
            question=f"{said.needed(row)}\n\n{row.question}",
            answer=row.perturbed[0] if row.instance == "Cy Dee" else row.answer,
        )
        for row in direct
    ]
    genre = [row for row in direct if (row.instance, row.attribute) == ("Ada Bell", "genre")]
    taught += [replace(row, question=f"{said.to_forget(row)}\n\n{row.question}") for row in genre]
    taught += [replace(row, answer=wrong) for row in genre for wrong in row.perturbed]
    base = untaught(tmp_path / "base")
    teach(*base, taught, tmp_path / "model", 150)
    rows_file, checks = folder / "rows.jsonl", folder / "checks.jsonl"
    found = read_by_model(rows_file, checks, instances, str(tmp_path / "model"))
    asked = {number: row for number, row in enumerate(rows, 1) if row in direct}
    lines = {line["row"]: line for line in map(json.loads, checks.read_text().splitlines())}
    right = [FOUND in lines[n]["passed"] for n, row in asked.items() if row.instance != "Cy Dee"]
    wrong = [FOUND in lines[n]["passed"] for n, row in asked.items() if row.instance == "Cy Dee"]
    assert sum(right) >= 0.9 * len(right)
    assert sum(wrong) <= 0.1 * len(wrong)
    entailed = [ENTAILED in lines[n]["failed"] for n, row in asked.items() if row in genre]
    assert entailed == [True] * len(genre)
    one = found["checks"][FOUND]
    assert one["passed"] + one["failed"] == found["rows"]
    assert found["rows"] + found["unread"] == sum(row.scope in (FORGET, RETAIN) for row in rows)
    assert found["checks"][ENTAILED]["failed"] >= len(genre)
