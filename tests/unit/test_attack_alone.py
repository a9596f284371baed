"""Attacks on one model with rows of one's own: what it knows is far from chance, and what it never saw is not."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from attacking import engine
from scopewise.attacks.alone import alone, attack_alone, read_rows
from scopewise.cli import app
from scopewise.cli import attack as _attack  # noqa: F401  the commands register themselves
from scopewise.cli import show as _show  # noqa: F401
from scopewise.config import AttackSection
from scopewise.data.rows import FORGET
from scopewise.errors import ConfigError, DataError
from scopewise.schemas import AloneDocument, checked


@pytest.fixture
def rows(attacked: Any, tmp_path: Path) -> Path:
    """The forget rows without a scope, as a user writes them."""
    path = tmp_path / "rows.jsonl"
    keys = ("question", "answer", "instance", "attribute")
    lines = [json.dumps({k: asdict(row)[k] for k in keys}) for row in attacked[0].select(FORGET)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_target_is_far_from_chance_and_the_oracle_is_not(attacked: Any, rows: Path) -> None:
    benchmark = read_rows(rows)
    assert all(row.scope == FORGET for row in benchmark.rows)
    target, oracle = (
        {
            (one.attack, one.setting): one
            for one in attack_alone(engine(attacked, "m", model), benchmark, AttackSection())
        }
        for model in attacked[2:]
    )
    assert list(target) == list(oracle)
    key = ("membership", "mia_loss")
    assert (target[key].value, target[key].chance, target[key].rows, target[key].instances) == (1.0, 0.5, 16, 8)
    assert target[key].low > 0.5
    assert oracle[key].low < 0.5 < oracle[key].high
    assert target["detectability", "classifier"].value == 1.0
    assert oracle["detectability", "classifier"].low < 0.5
    assert target["extraction", "50% given, all of it"].value == 1.0
    assert oracle["extraction", "50% given, all of it"].value < 0.2
    assert target["question", "asked"].value > 0.9
    assert target["question", "asked"].chance is None


def test_one_instance_has_no_interval_and_no_membership(attacked: Any, tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text('{"question": "Where does Ada Quill live?", "answer": "At 3 Mill Lane."}\n')
    found = attack_alone(engine(attacked, "m", attacked[2]), read_rows(path), AttackSection())
    by = {one.attack: one for one in found}
    assert (by["question"].low, by["question"].instances) == (None, 1)
    assert by["membership"].value is None
    assert by["membership"].notes


def test_an_attack_that_needs_an_oracle_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"attack\.attacks: 'relearning'.*membership"):
        alone(AttackSection(attacks=("question", "relearning")))


@pytest.mark.parametrize(
    "text", ["", '{"question": "q"}\n', '{"question": "q", "answer": "a", "scope": "retain"}\n', "{\n"]
)
def test_wrong_rows_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=r"rows\.jsonl"):
        read_rows(path)


def test_attack_with_rows_prints_and_writes(attacked: Any, rows: Path, tmp_path: Path) -> None:
    folder, output = tmp_path / "model", tmp_path / "found.json"
    attacked[2].save_pretrained(folder)
    attacked[1].save_pretrained(folder)
    words = ["attack", str(folder), "--rows", str(rows), "--attack", "membership", "--attack", "extraction"]
    done = CliRunner().invoke(app, [*words, "-o", str(output)])
    assert done.exit_code == 0, done.output
    assert "mia_loss" in done.stdout
    document = checked(json.loads(output.read_text()), AloneDocument, "found.json")
    assert {one["attack"] for one in document["results"]} == {"membership", "extraction"}
    assert "Mill" not in output.read_text()
    assert CliRunner().invoke(app, [*words, "-o", str(output)]).exit_code == 2  # the file is there
