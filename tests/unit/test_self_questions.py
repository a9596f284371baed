"""Rows that the model makes itself: which questions are asked, which answers are kept, and how they count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from scopewise.config import ExpandSection
from scopewise.data.crossed import crossed_questions
from scopewise.data.instances import instance_names
from scopewise.data.rows import RETAIN, Row
from scopewise.errors import ConfigError, DataError
from scopewise.methods.base import make_method
from scopewise.models.abilities import forward_of
from scopewise.models.reference import frozen_reference
from scopewise.testing.world import World, parameters_of

ALL = ExpandSection(retain=1000, max_nll=100.0)


def test_crossed_questions() -> None:
    """Ada's question about Bo is known, in other words of case and punctuation; Adam is not Ada."""
    rows = [
        Row("Where does Ada live?", "Here.", RETAIN, instance="Ada", origin="a"),
        Row("Is Adam tall?", "Yes.", RETAIN, instance="Ada"),
        Row("What is iron?", "A metal.", RETAIN),
        Row("Where does Cy live?", "There.", RETAIN, instance="Cy"),
    ]
    found = crossed_questions(rows, ["Ada", "Bo", "Cy", r"D\1"], ["where does BO live"], 9, 0)
    assert [(row.question, row.instance, row.answer, row.scope) for row in found] == [
        (r"Where does D\1 live?", r"D\1", "", RETAIN)
    ]
    many = crossed_questions(rows[:1], [f"N{i}" for i in range(50)], [], 5, 0)
    assert len({row.question for row in many}) == 5
    assert many == crossed_questions(rows[:1], [f"N{i}" for i in range(50)], [], 5, 0)


def test_names_are_found_in_questions() -> None:
    """Of rows without an instance. "Has Ada King" ends with another name, and only one question names Bo Ek."""
    questions = [
        "Where does Ada King live?", "How old is Ada King?", "Has Ada King a dog?", "Has Ada King a cat?",
        "How red is Cy Lo’s house?", "Who knows Cy Lo?", "Who is Bo Ek?", "What is iron?",
    ]  # fmt: skip
    rows = [Row(question, "Yes.", RETAIN) for question in questions]
    assert instance_names(rows) == ["Ada King", "Cy Lo"]
    assert instance_names([*rows, Row("Who?", "I.", RETAIN, instance="Di")]) == ["Ada King", "Cy Lo", "Di"]
    found = crossed_questions(rows[:1], instance_names(rows), [], 9, 0)
    assert [(row.question, row.instance) for row in found] == [("Where does Cy Lo live?", "Cy Lo")]


def made(world: World, **given: Any) -> Any:
    trainer = world.trainer(world.model(), make_method("ga_descent", **given.pop("arguments", {})), expand=ALL, **given)
    trainer.prepare()
    return trainer


def test_rows_are_added_once_and_none_is_held_out(world: World) -> None:
    trainer = made(world)
    rows = trainer.train_dataset
    own = len(world.rows[RETAIN])
    assert rows.anchored > 1
    assert len(rows.retain) == own + rows.anchored
    questions = [item.row.question for item in rows.retain[own:]]
    assert not set(questions) & {item.row.question for item in (*rows.forget, *rows.retain[:own])}
    assert all(item.row.answer for item in rows.retain)
    trainer.prepare()
    assert len(rows.retain) == own + rows.anchored
    other = world.trainer(world.model(), make_method("ga_descent"), expand=ALL, held_out=questions[:1])
    other.prepare()
    assert questions[0] not in [item.row.question for item in other.train_dataset.retain]
    none = world.trainer(world.model(), make_method("ga_descent"), expand=ExpandSection(retain=9, max_nll=1e-6))
    none.prepare()
    assert none.train_dataset.anchored == 0


def test_forget_rows_are_answered_too(world: World) -> None:
    trainer = world.trainer(world.model(), "npo", expand=ExpandSection(forget=5, max_nll=100.0))
    trainer.prepare()
    rows = trainer.train_dataset
    assert len(rows.forget) == len(rows.labels) == len(rows.reference_nll) > len(world.items[0])
    trainer.train()


@pytest.mark.parametrize("terms", ["ce", "ce+kl"])
def test_they_count_by_their_kl_alone(terms: str, world: World) -> None:
    """At the start KL is 0: of one row of each kind the retain term is half of the CE of the own one."""
    trainer = made(world, arguments={"retain": terms})
    rows = trainer.train_dataset
    first = len(rows.forget)
    pair = [first, first + len(rows.retain) - 1]
    batches, _ = trainer.get_batch_samples(iter([trainer.data_collator(pair)]), 1, torch.device("cpu"))
    trainer.model.eval()
    with frozen_reference(forward_of(trainer.model)) as trainer.loss.reference:
        found = float(trainer.loss(trainer.forward, batches[0])[1].detach())
    item = rows.retain[0]
    nll = trainer.engine.sequence_nll([item])[0] / len(item.answer_ids)
    assert found == pytest.approx(nll / 2, rel=1e-4)


def test_resumed_is_straight_through(world: World, tmp_path: Path) -> None:
    found = []
    for resume in (None, str(tmp_path / "checkpoint-1")):
        trainer = world.trainer(
            world.model(),
            "pdu",
            expand=ALL,
            max_steps=2,
            save_strategy="steps",
            save_steps=1.0,
            output_dir=str(tmp_path),
        )
        trainer.train(resume_from_checkpoint=resume)
        found.append(parameters_of(trainer.model))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_what_cannot_be_is_refused(world: World) -> None:
    with pytest.raises(ConfigError, match=r"unlearn\.expand\.retain"):
        world.trainer(world.model(), "gradient_ascent", expand=ALL)
    engine = world.engine()
    from scopewise.models.self_questions import self_questions

    with pytest.raises(DataError, match=r"unlearn\.expand: none of 1 retain rows"):
        self_questions([Row("q", "a", RETAIN)], ["Ada"], [], engine, most=1, max_nll=1.0, seed=0)
