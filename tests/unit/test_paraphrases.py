"""Given paraphrases of forget questions as further forget rows: which are taken, and what they do to any method."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scopewise.config import ExpandSection, RunConfig
from scopewise.data.load import load_benchmark
from scopewise.data.paraphrases import paraphrased
from scopewise.data.rows import FORGET, RETAIN, TRAIN, VAL, Benchmark, Row
from scopewise.errors import ConfigError
from scopewise.methods.base import make_method
from scopewise.runs.checks import check_run, check_unlearning
from scopewise.testing.world import World

WORDINGS = ("where does ADA live", "Ada's home is?", "Whose home is here?", "In which town is Ada?", "Home of Ada?")
ASKED = {"indirect": ("Whose home is here?",), "paraphrased_questions": WORDINGS}
ROWS = [
    Row("Where does Ada live?", "Here.", FORGET, alternative="Nowhere.", origin="a:1", **ASKED),
    Row("How old is Ada?", "Nine.", FORGET, origin="a:2"),
]


def test_paraphrases_are_those_that_no_one_is_judged_by() -> None:
    """Not the question itself, not one of `indirect`, not one of val, in whatever case; the first two of the rest."""
    found = paraphrased(ROWS, ["in which town is ada"], 2)
    assert [(row.question, row.answer, row.alternative, row.scope) for row in found] == [
        ("Ada's home is?", "Here.", "Nowhere.", FORGET),
        ("Home of Ada?", "Here.", "Nowhere.", FORGET),
    ]
    assert [row.origin for row in found] == ["a:1, paraphrase 1", "a:1, paraphrase 2"]
    assert len(paraphrased(ROWS, [], 1)) == 1
    with pytest.raises(ConfigError, match=r"unlearn\.expand\.paraphrases: 3, and every"):
        paraphrased(ROWS, ["Ada's home is?", "In which town is Ada?", "Home of Ada?"], 3)
    with pytest.raises(ConfigError, match=r"unlearn\.expand\.paraphrases: 3, and none of 1 forget rows"):
        paraphrased(ROWS[1:], [], 3)


def rephrased(world: World) -> list[Row]:
    """The world's forget rows, each with two paraphrases."""
    return [
        replace(row, alternative="No.", paraphrased_questions=(f"Say: {row.question}", f"Well, {row.question}"))
        for row in world.rows[FORGET]
    ]


@pytest.mark.parametrize("name", ["wga", "npo", "dpo", "relearn", "idk_ap", "random_labels", "per_mu", "mcu"])
def test_every_kind_of_method_trains_on_them(name: str, world: World) -> None:
    """Labels, preferred answers, reference and subject are those of each row, and so is the number of steps."""
    expand = ExpandSection(paraphrases=2)
    own = len(world.rows[FORGET])
    held_out = [f"SAY {world.rows[FORGET][0].question}"]
    trainer = world.trainer(
        world.model(), make_method(name), expand=expand, held_out=held_out, max_steps=-1, num_train_epochs=1.0
    )
    trainer.step_loss.true_rows = [
        replace(item, row=row) for item, row in zip(trainer.step_loss.true_rows, rephrased(world), strict=True)
    ]
    result = trainer.train()
    rows = trainer.train_dataset
    assert len(rows.forget) == len(rows.labels) == 3 * own - 1
    for given in (rows.preferred, rows.reference_nll, rows.subject):
        assert len(given) in (0, len(rows.forget))
    questions = [item.row.question for item in rows.forget]
    assert not any(question.startswith("Say") for question in questions[own : own + 1])
    pairs = 1 + bool(rows.retain)
    assert result.global_step == -(-len(rows.forget) * pairs // 8)
    answers = {item.row.question: item.row.answer for item in rows.forget}
    for row in world.rows[FORGET]:
        if name not in ("relearn", "idk_ap"):  # which are trained on other answers
            assert answers[f"Well, {row.question}"] == row.answer
    trainer.prepare()
    assert len(rows.forget) == 3 * own - 1


def test_self_questions_have_no_alternative_of_the_rows(world: World) -> None:
    with pytest.raises(ConfigError, match=r"unlearn\.expand\.forget: above 0"):
        world.trainer(world.model(), make_method("dpo", alternative="row"), expand=ExpandSection(forget=1))


def test_a_run_without_paraphrases_is_refused_before_it_begins(tmp_path: Path) -> None:
    row = {"question": "Who?", "answer": "Ada", "scope": "forget"}
    rows = [row, {**row, "question": "Whose?", "scope": "retain"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    values: dict[str, Any] = {
        "data": {"benchmark": "jsonl", "path": str(tmp_path / "rows.jsonl")},
        "unlearn": {"expand": {"paraphrases": 1}},
        "evaluate": {"splits": ["train"], "generate_splits": [], "direct_splits": []},
    }
    config = RunConfig.model_validate(values)
    with pytest.raises(ConfigError, match=r"^unlearn\.expand\.paraphrases: 1, and none"):
        check_unlearning(check_run(config), config.unlearn)
    rows[0]["paraphrased_questions"] = ["Say who?"]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    check_unlearning(check_run(config), config.unlearn)


def test_tofus_paraphrases_are_of_its_train_rows(tmp_path: Path) -> None:
    """They stand in the file of the val rows, which ask the train questions themselves."""

    def write(name: str, records: list[dict[str, Any]]) -> None:
        (tmp_path / f"{name}.json").write_text("".join(json.dumps(record) + "\n" for record in records))

    pair = {"question": "forget 0?", "answer": "0."}
    write("forget01", [pair, {"question": "forget 1?", "answer": "1."}])
    write("retain99", [{"question": "retain?", "answer": "r."}])
    other = {"paraphrased_answer": "so", "perturbed_answer": ["a"]}
    write("forget01_perturbed", [{**pair, **other, "paraphrased_question": "zero?"}])
    write("retain_perturbed", [{"question": "retain?", "answer": "r.", **other, "paraphrased_question": "kept?"}])
    for name in ("real_authors_perturbed", "world_facts_perturbed"):
        write(name, [{"question": name, "answer": "x", "perturbed_answer": ["a"]}])
    benchmark = load_benchmark("tofu", str(tmp_path), "forget01")
    found = {(row.question, row.split): row.paraphrased_questions for row in benchmark.rows}
    assert found["forget 0?", TRAIN] == ("zero?",)
    assert found["forget 1?", TRAIN] == ()
    assert found["forget 0?", VAL] == ()
    assert found["retain?", TRAIN] == ()


def test_paraphrases_count_in_the_content_only_where_there_are_some() -> None:
    bare = Benchmark("rows", (Row("q", "a", RETAIN),))
    some = Benchmark("rows", (Row("q", "a", RETAIN, paraphrased_questions=("r",)),))
    assert bare.content_hash() != some.content_hash()
