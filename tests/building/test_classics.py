"""Real books as instances, and the script that measures what a model knows of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

from loading import module_of
from scopewise import cli
from scopewise.data.load import load_benchmark
from scopewise.data.rows import FORGET, TRAIN, Row
from scopewise.models.engine import Engine

ROOT = Path(__file__).parents[2]
CLASSICS, BOOKS = module_of(ROOT / "benchmarks" / "classics.py"), ROOT / "examples" / "benchmarks"
module_of(ROOT / "docs" / "make_cli.py").commands()  # registers them


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Row]]:
    out = tmp_path_factory.mktemp("built") / "classics"
    given = [
        "build",
        BOOKS / "classics.yaml",
        "--law",
        BOOKS / "classics-law.yaml",
        "--out",
        out,
        "--kinds",
        "direct,paraphrase",
    ]
    done = CliRunner().invoke(cli.app, list(map(str, given)))
    assert done.exit_code == 0, done.output
    return CLASSICS.first_questions(load_benchmark("jsonl", str(out / "rows.jsonl")).select(split=TRAIN))


def test_the_words_of_a_work_must_go_and_facts_about_it_stay(asked: dict[str, list[Row]]) -> None:
    instances = {
        one["name"]: one["attributes"] for one in yaml.safe_load((BOOKS / "classics.yaml").read_text())["instances"]
    }
    assert len(instances) == 12
    assert all(len(rows) == 12 for rows in asked.values())
    assert {name for name, rows in asked.items() if rows[0].scope == FORGET} == {"opening", "extension", "revision"}
    for row in asked[CLASSICS.WORDS]:
        words = row.answer.split(": ", 1)[1]
        assert instances[row.instance]["opening"].rstrip(".") == words.rstrip(".")


def test_a_fact_is_ranked_among_those_of_the_other_books(tiny: Any, asked: dict[str, list[Row]]) -> None:
    """Two of the books are by Dickens, so eleven authors are compared; twelve years."""
    engine = Engine(*tiny)
    for attribute, number in (("author", 11), ("year", 12)):
        found = CLASSICS.known(engine, asked[attribute])
        assert [one["book"] for one in found] == [row.instance for row in asked[attribute]]
        assert all(one["of"] == number and 1 <= one["rank"] <= number for one in found)


def test_words_count_without_the_sentence_that_announces_them(tiny: Any, asked: dict[str, list[Row]]) -> None:
    """As by the model's own forward, whose arg-max is compared with the tokens of the words alone."""
    engine, rows = Engine(*tiny), asked[CLASSICS.WORDS][:3]
    for row, found in zip(rows, CLASSICS.completed(engine, rows), strict=True):
        (item,) = engine.encode([row])
        (said,) = engine.encode([Row(row.question, row.answer.split(": ", 1)[0] + ":", FORGET)])
        words = item.answer_ids[len(said.answer_ids) :]
        assert said.answer_ids == item.answer_ids[: len(said.answer_ids)]
        with torch.no_grad():
            logits = engine.model(torch.tensor([item.prompt_ids + item.answer_ids])).logits[0]
        right = logits[-len(words) - 1 : -1].argmax(-1) == torch.tensor(words)
        last_wrong = (~right).nonzero().flatten().tolist()[-1]
        assert found["tokens"] == len(words)
        assert found["right"] == int(right.sum())
        assert found["strength"] == pytest.approx(1 - (last_wrong + 1) / len(words))
