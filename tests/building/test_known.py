"""Whether models know the facts of a benchmark."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from asked import teach, untaught
from loading import module_of
from scopewise import cli
from scopewise.building.known import forget_facts
from scopewise.data.load import load_benchmark
from scopewise.data.rows import FORGET, TRAIN, VAL
from scopewise.errors import DataError

ROOT = Path(__file__).parents[2]
module_of(ROOT / "docs" / "make_cli.py").commands()


@pytest.mark.slow
def test_the_target_knows_what_the_base_does_not(tmp_path: Path) -> None:
    """A tiny model that was taught the train rows of three persons, whose facts are each asked once, and one that was not."""
    persons = (ROOT / "examples" / "benchmarks" / "persons.yaml").read_text().split("  - name: Silvester")[0]
    (tmp_path / "three.yaml").write_text(persons)
    arguments = ["build", str(tmp_path / "three.yaml"), "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(cli.app, arguments).exit_code == 0
    rows = load_benchmark("jsonl", str(tmp_path / "out" / "rows.jsonl")).rows
    taught = [row for row in rows if row.split == TRAIN and row.scope in ("forget", "retain") and row.kind == "direct"]
    base = untaught(tmp_path / "base")
    teach(*base, taught, tmp_path / "target", 150)
    models = ["--check-model", str(tmp_path / "target"), "--base", str(tmp_path / "base")]
    done = CliRunner().invoke(cli.app, [*arguments, "--overwrite", *models])
    assert done.exit_code == 0, done.output
    known = json.loads((tmp_path / "out" / "datasheet.json").read_text())["known"]
    target, before = known["models"]
    assert known["facts"] == 9  # 3 persons x parents, email, address
    assert target["known"] >= 6  # by chance 9 x 5 %
    assert before["known"] <= 3
    assert target["nll"] < 0.5 * before["nll"]
    lines = [json.loads(line) for line in (tmp_path / "out" / "known.jsonl").read_text().splitlines()]
    assert len(lines) == 9
    assert sum(line["models"][0]["known"] for line in lines) == target["known"]
    read = json.loads((tmp_path / "out" / "datasheet.json").read_text())["read"]
    assert read["model"] == str(tmp_path / "base")  # the target may answer by what it was taught
    assert read["rows"] > 0
    assert "finds the answer of" in " ".join(done.output.split())
    assert "Read by a model" in (tmp_path / "out" / "DATASHEET.md").read_text()
    assert "What models know" in (tmp_path / "out" / "DATASHEET.md").read_text()


def test_facts_are_of_train_and_each_is_asked_once() -> None:
    rows = load_benchmark("builtin", None, "privacy").rows
    facts = forget_facts(iter(rows))
    assert len({(fact.instance, fact.row.attribute) for fact in facts}) == len(facts)
    assert {(fact.row.scope, fact.row.split) for fact in facts} == {(FORGET, TRAIN)}
    assert len(forget_facts(iter(rows), most=10)) <= 10
    with pytest.raises(DataError, match="--check-model"):
        forget_facts(replace(row, split=VAL) for row in rows)


def test_a_base_without_a_target(tmp_path: Path) -> None:
    persons = str(ROOT / "examples" / "benchmarks" / "persons.yaml")
    done = CliRunner().invoke(cli.app, ["build", persons, "--out", str(tmp_path / "out"), "--base", "x"])
    assert done.exit_code == 2
    assert "--check-model" in done.output
