"""What is made of a request's rows: wordings that are disjoint, inverse questions, and neighbours that repeat no secret."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engines import engine_of
from scopewise.data.crossed import plain
from scopewise.data.load import load_benchmark
from scopewise.data.rows import FORGET, RETAIN, TRAIN, VAL, Row
from scopewise.erasure.expand import KNOWN_NAMES, expand, repeats
from scopewise.erasure.wordings import indirect_clause, inverse_of, to_train, to_verify, value_of
from scopewise.errors import DataError
from scopewise.models.engine import Engine

ADA = Row(
    "Where does Ada King live?",
    "She lives at 3 Mill Lane.",
    FORGET,
    instance="Ada King",
    attribute="address",
    origin="f:1",
)
WORK = Row("What did Ada King write?", "Notes.", RETAIN, instance="Ada King", attribute="work", origin="f:2")


def test_wordings_of_a_fact() -> None:
    facts = {("Ada King", "address")}
    assert to_train(ADA, facts) == [
        "Tell me the address of Ada King.",
        "Please answer this question. Where does Ada King live?",
        "I am looking for Ada King's address.",
        "Here is what I would like to know. Where does Ada King live?",
    ]
    assert to_verify(ADA, facts)[:3] == [
        "Could you tell me where Ada King lives?",
        "What do you know about the address of Ada King?",
        "Somebody asked me this: Where does Ada King live?",
    ]
    assert not any("address" in text for text in (*to_train(ADA, ()), *to_verify(ADA, ())))
    assert "e-mail address of" in to_train(replace(ADA, attribute="email"), {("Ada King", "email")})[0]


@pytest.mark.parametrize(
    ("question", "clause"),
    [
        ("Where does Ada King live?", "where Ada King lives"),
        ("Which dog does Ada King have at home?", "which dog Ada King has at home"),
        ("What does Ada King study?", "what Ada King studies"),
        ("What does Ada King play?", "what Ada King plays"),
        ("What is Ada King's phone number?", "what Ada King's phone number is"),
        ("Who are the parents of Ada King?", "who the parents of Ada King are"),
        ("When was Ada King born?", "when Ada King was born"),
        ("What did Ada King write?", None),
        ("Is Ada King tall?", None),
        ("Tell me where Ada King lives.", None),
    ],
)
def test_indirect_questions(question: str, clause: str | None) -> None:
    assert indirect_clause(Row(question, "A", FORGET)) == clause  # its name is found in the question


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("She lives at 3 Mill Lane.", "3 Mill Lane"),
        ("Her address is 3 Mill Lane, Delft", "3 Mill Lane, Delft"),
        ("ada@mill.example", "ada@mill.example"),
        ("3 Mill Lane", "3 Mill Lane"),
        ("She writes novels about canals.", None),
        ("Her father is Tom and her mother is Eve.", None),
        ("At 3 Mill Lane. She moved there in May.", None),
        ("She lives at 3 Mill Lane in a blue house with a large dog on the porch.", None),
        ("yes", None),
    ],
)
def test_the_value_of_an_answer(answer: str, value: str | None) -> None:
    assert value_of(answer) == value


def test_inverse_questions_of_values_that_one_instance_has() -> None:
    assert inverse_of(ADA) == "To whom does this address belong: 3 Mill Lane?"
    assert inverse_of(replace(ADA, attribute="")) is None
    assert inverse_of(replace(ADA, domain="copyright")) is None
    again = replace(ADA, question="What is her address?", answer="Her address is 3 Mill Lane.")
    (row,) = expand([ADA, again]).inverse
    assert (row.answer, row.scope, row.split, row.instance) == ("Ada King", FORGET, VAL, "Ada King")
    assert row.origin.endswith(", inverse")
    neighbour = replace(ADA, question="Where does Bo Lee live?", answer="He lives at 3 Mill Lane.", instance="Bo Lee")
    assert expand([ADA, neighbour]).inverse == ()


def test_nothing_verified_is_trained_on_and_every_row_says_where_it_is_from() -> None:
    """On the built-in benchmark: of the forget train rows each has two wordings of both kinds, besides the val rows."""
    rows = load_benchmark("builtin").rows
    found = expand(rows)
    forget, val = ([r for r in rows if r.scope == FORGET and r.split == split] for split in (TRAIN, VAL))
    assert len(found.forget) == 3 * len(forget)
    assert len(found.verification) == 2 * len(forget) + len(val)
    trained = {plain(row.question) for row in (*found.forget, *found.retain)}
    verified = [plain(row.question) for row in (*found.verification, *found.held_out)]
    assert not trained & set(verified)
    assert len(set(verified)) == len(verified)
    assert all(row.origin for part in (found.forget, found.verification, found.retain, found.held_out) for row in part)
    answers = {(row.answer, row.scope) for row in rows}
    assert all((row.answer, row.scope) in answers for row in (*found.forget, *found.verification, *found.retain))
    benchmark = found.benchmark("request").check()
    assert len(benchmark.select(FORGET, TRAIN)) == len(found.forget)
    assert len(benchmark.select(RETAIN, VAL)) == len(found.held_out)


def test_own_paraphrases_come_first_and_never_a_question_of_val() -> None:
    own = replace(ADA, paraphrased_questions=("Her home?", "Where is her house?"), indirect=("Where is her cat?",))
    val = replace(ADA, question="Where is her house?", split=VAL)
    found = expand([own, val, WORK], wordings=2)
    assert [row.question for row in found.forget] == [ADA.question, "Her home?", "Tell me the address of Ada King."]
    assert found.verification[0] == val
    assert all(row.split == VAL for row in found.verification)


def test_an_attribute_that_two_rows_ask_for_is_not_asked_for_by_name() -> None:
    """Which of the two prizes "the awards of Ada King" means is unknown."""
    rows = [replace(ADA, question=f"Which prize did Ada King win in {y}?", attribute="awards") for y in (1840, 1850)]
    found = expand(rows, wordings=4)
    assert not any("awards" in row.question for row in (*found.forget, *found.verification))


def test_without_wordings_or_rows() -> None:
    found = expand([ADA, WORK], wordings=0)
    assert (found.forget, found.verification, found.retain, found.held_out) == ((ADA,), (), (WORK,), ())
    with pytest.raises(DataError, match=r"rows: none of scope 'forget' and split 'train'"):
        expand([WORK])


@pytest.fixture(scope="module")
def engine() -> Engine:
    from scopewise.testing.world import tiny_model

    return engine_of(tiny_model()[0])


def test_neighbours_are_what_the_model_says_of_others(engine: Any) -> None:
    """Ada's only attribute is her address: others are asked for theirs, and she for other attributes."""
    found = expand([ADA], engine, neighbours=40, max_nll=1e9)
    made = [*found.retain, *found.held_out]
    assert {row.scope for row in made} == {RETAIN}
    assert {row.split for row in found.retain} == {TRAIN}
    assert {row.split for row in found.held_out} == {VAL}
    asked = [row.question for row in made]
    assert len(set(asked)) == len(asked) > 8
    assert "What is Ada King known for?" in asked
    where = [row for row in made if "live?" in row.question]
    assert where
    assert {row.instance for row in where} <= set(KNOWN_NAMES["privacy"])
    assert all(row.origin == "f:1, about another instance" for row in where)
    assert all(row.answer for row in made)
    assert expand([ADA], engine, neighbours=40, max_nll=1e9) == found
    assert expand([ADA], engine, neighbours=40, max_nll=1e-9).retain == ()
    assert expand([ADA, WORK], engine).retain[0] == WORK  # nothing is made where there are rows to keep


def test_no_question_about_an_instance_of_unknown_attributes(engine: Any) -> None:
    found = expand([replace(ADA, attribute="")], engine, neighbours=40, max_nll=1e9)
    assert not any("Ada King" in row.question for row in (*found.retain, *found.held_out))


@pytest.mark.parametrize(
    ("text", "leaks"),
    [
        ("Marie Curie lives at 3 Park Row.", True),  # the number
        ("She owns a mill.", True),  # the name, in small letters too
        ("she LIVES at three gates", False),  # three words are no run of four
        ("Yes, she lives at 17 Park Row.", False),
        ("Ada King lives in a house.", False),  # the name stands in the question
        ("", False),
    ],
)
def test_what_repeats_a_forget_answer(text: str, leaks: bool) -> None:
    assert repeats(text, [ADA]) == leaks


def test_a_neighbour_that_repeats_a_forget_answer_is_left_out(engine: Any) -> None:
    """The answer to forget is made to be what the model says to another question: that neighbour is not kept."""
    before = expand([ADA], engine, neighbours=40, max_nll=1e9)
    secret = next(row.answer for row in (*before.retain, *before.held_out) if plain(row.answer))  # not broken bytes
    after = expand([replace(ADA, answer=secret)], engine, neighbours=40, max_nll=1e9)
    kept = [*after.retain, *after.held_out]
    assert kept
    assert secret not in [row.answer for row in kept]
