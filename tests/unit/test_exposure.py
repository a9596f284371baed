"""Exposure: ranks by hand, exact tests, uniform p-values on what was never taught, and what gives an answer away."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from scopewise.data.candidates import other_names, renamed, wrong_answers
from scopewise.data.facts import LEAST_ANSWERS, Fact, facts_of, together
from scopewise.data.rows import FORGET, RETAIN, Row
from scopewise.errors import DataError
from scopewise.exposure import answer_scores, compared_with, expose, unexpected
from scopewise.models.engine import Engine
from scopewise.ranks import Exposure, Ranked, chance_bits, tail
from scopewise.testing.attacks import AttackWorld
from scopewise.testing.world import World


def ranked(rank: int, number: int = 21, instance: str = "Ada Quill") -> Ranked:
    row = Row("Where?", "Here.", FORGET)
    return Ranked(Fact(row, instance, "", ("Where?",), ("There.",) * (number - 1), ()), rank, number, (rank,))


def test_chance_is_the_mean_over_all_ranks() -> None:
    assert chance_bits(4) == pytest.approx(2 - (0 + 1 + math.log2(3) + 2) / 4)
    assert np.mean([ranked(r).known for r in range(1, 22)]) == pytest.approx(0, abs=1e-9)
    assert ranked(1).known == 1
    assert ranked(21).known < 0
    assert ranked(1).bits == math.log2(21)
    assert ranked(3).p == 3 / 21


def test_the_tail_of_one_fact_is_its_rank_and_that_of_two_is_counted() -> None:
    assert [tail([r], [21]) for r in (1, 7, 21)] == pytest.approx([1 / 21, 7 / 21, 1])
    bits = [math.log2(5) - math.log2(r) for r in range(1, 6)]
    pairs = sum(a + b >= bits[1] + bits[2] - 1e-9 for a in bits for b in bits)  # ranks 2 and 3
    assert tail([2, 3], [5, 5]) == pytest.approx(pairs / 25)


def test_p_values_of_random_ranks_are_uniform() -> None:
    rng = np.random.default_rng(0)
    draws = [Exposure(tuple(ranked(int(r)) for r in rng.integers(1, 22, 12))) for _ in range(2000)]
    for p in ([one.p for one in draws], [one.p_worse for one in draws]):
        for level in (0.01, 0.05, 0.25, 0.5, 0.9):
            assert np.mean(np.array(p) <= level) == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / 2000))


def test_an_exposed_instance_is_found_among_others_after_correction() -> None:
    rng = np.random.default_rng(1)
    names = [f"Person {i}" for i in range(10)]
    facts = [ranked(int(rng.integers(1, 41)), 40, name) for name in names for _ in range(4)]
    facts += [ranked(1, 40, "Eda Palk") for _ in range(4)]
    first, *others = Exposure(tuple(facts)).instances
    assert first.instance == "Eda Palk"
    assert first.corrected < 0.001
    assert first.known == 1
    assert min(one.corrected for one in others) > 0.05


def test_a_single_instance_has_no_interval() -> None:
    known = Exposure((ranked(1), ranked(1))).known
    assert (known.value, known.low, known.high) == (1, None, None)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Ada Quill lives here.", "Ben Orrow lives here."),
        ("Write to ada.quill@post.example.", "Write to ben.orrow@post.example."),
        ("Quill's house, q77quill", "Orrow's house, q77orrow"),
        ("Quilling is her craft.", "Quilling is her craft."),
    ],
)
def test_a_person_is_renamed_with_every_part_of_the_name(text: str, found: str) -> None:
    assert renamed(text, "Ada Quill", "Ben Orrow") == found


def test_accents_are_dropped_in_an_address_and_a_title_is_renamed_as_a_whole() -> None:
    assert renamed("lucaine@post.example", "Luçaine Fontverdier", "Ada Quill") == "ada@post.example"
    assert renamed("In The Salt Orchard, the orchard", "The Salt Orchard", "Fog") == "In Fog, the orchard"


def test_other_names_are_of_nobody_given() -> None:
    people = ["Ada Quill", "Ben Orrow", "Cleo Varga"]
    made = other_names("Dov Mistral", people, 5, random.Random(0))
    assert len(set(made)) == 5
    assert not {*made, "Dov Mistral"} & set(people)
    titles = ["The Sea", "The Hill", "The Well"]
    assert sorted(other_names("The Fog", [*titles, *people], 5, random.Random(0))) == sorted(titles)
    assert len(other_names("The Fog", people, 5, random.Random(0))) == 5  # of well-known books
    assert len(other_names("Dov Mistral", [], 5, random.Random(0))) == 5


def test_wrong_answers_keep_the_sentence_and_what_may_be_known() -> None:
    row = Row("Where does Ada Quill live?", "She lives at 12 Mill Lane in Rome, Ada Quill.", FORGET)
    pools = [
        ["At 31 Heron Way in Oslo.", "On Vine Square near Bonn, under Oak Trees, or Fern and Lark and Pond and Quay."]
    ]
    made = wrong_answers(row, "Ada Quill, born in Rome", pools, 30, random.Random(0))
    assert len(set(made)) == 30
    assert row.answer not in made
    for answer in made:
        words = answer.replace(",", "").replace(".", "").split()
        assert words[0] == "She"
        assert words[-3:] == ["Rome", "Ada", "Quill"]
        assert "Mill" not in words
        assert len(words[3]) == 2
        assert words[3].isdigit()


def people(count: int = 8) -> tuple[list[Row], list[Row]]:
    streets = ("Mill", "Heron", "Oak", "Quay", "Fern", "Lark", "Pond", "Vine")
    names = ("Ada Quill", "Ben Orrow", "Cleo Varga", "Dov Mistral", "Eda Palk", "Finn Uster", "Gil Thorne", "Hana Wex")
    pairs = list(zip(names, streets, strict=True))[:count]
    forget = [
        Row(f"Where does {n} live?", f"At {7 * i + 3} {s} Lane.", FORGET, instance=n) for i, (n, s) in enumerate(pairs)
    ]
    return forget, [Row(f"What does {n} write?", f"{s} songs.", RETAIN, instance=n) for n, s in pairs]


def test_facts_are_the_same_for_the_same_seed_and_have_enough_answers() -> None:
    rows, retain = people()
    facts = facts_of(rows, retain, 1)
    assert facts == facts_of(rows, retain, 1) != facts_of(rows, retain, 2)
    for fact in facts:
        assert len(set(fact.wrong)) == len(fact.wrong) >= LEAST_ANSWERS
        assert fact.row.answer not in fact.wrong
        street = fact.row.answer.split()[-2]
        assert all(street in answer for answer in fact.wrong), "a word of the retain rows may be known"


def test_wordings_of_one_fact_are_one_fact() -> None:
    """Two wordings of each address, one of them of another street for the first person, who then has two facts."""
    rows, retain = people(4)
    worded = [
        Row(
            f"State the home of {r.instance}.",
            f"{r.instance} is at home at {r.answer[3:]}",
            FORGET,
            instance=r.instance,
        )
        for r in rows
    ]
    named = [replace(row, attribute="address") for row in (*rows, *worded)]
    named[4] = replace(named[4], answer=f"{named[4].instance} is at home at 99 Harbour Steps.")
    facts = facts_of(named, retain)
    found = together(facts)
    assert [len(fact.rows) for fact in found] == [1, 2, 2, 2, 1]
    assert found[1].questions == (named[1].question, named[5].question)
    assert found[1].row == named[1]
    assert [row for fact in found for row in fact.rows] == [named[i] for i in (0, 1, 5, 2, 6, 3, 7, 4)]
    assert together(found) == found
    assert len(together(facts_of([*rows, *rows], retain))) == 4  # equal answers, without an attribute


def test_wrong_answers_that_are_given_do_not_make_others_too_few() -> None:
    """Wrong answers are drawn from others' answers, some of which are among those given."""
    of = {f"Ada {last}": f"{1000 + 37 * i}" for i, last in enumerate(("Quill", "Orrow", "Varga", "Palk", "Uster"))}
    rows = [
        Row(f"What is the code of {n}?", f"It is {c}.", FORGET, instance=n, attribute="code",
            perturbed=tuple(f"It is {other}." for other in of.values() if other != c))
        for n, c in of.items()
    ]  # fmt: skip
    assert all(len(set(fact.wrong)) == 24 for fact in facts_of(rows, []))


def test_three_persons_are_enough() -> None:
    rows, retain = people(3)
    assert all(len(fact.wrong) >= LEAST_ANSWERS and fact.names for fact in facts_of(rows, retain))


def test_a_fact_without_a_word_of_its_own_is_refused() -> None:
    with pytest.raises(DataError, match=r"^Does Ada Quill live here\?: 0 wrong answers"):
        facts_of([Row("Does Ada Quill live here?", "She does.", FORGET)], [])
    with pytest.raises(DataError, match="no forget row"):
        facts_of([], [])


def test_the_target_is_exposed_and_the_oracle_is_not(attack_world: AttackWorld) -> None:
    forget, retain = attack_world.benchmark.select(FORGET), attack_world.benchmark.select(RETAIN)
    facts = facts_of(forget, retain)
    oracle = attack_world.engine("oracle")
    target = expose(attack_world.engine("target"), facts, base=oracle)
    assert target.p < 1e-6
    assert target.known.value > 0.8
    assert target.count > 10
    assert target.base == expose(oracle, facts)
    assert target.base is not None
    assert target.base.p > 0.01
    assert min(one.corrected for one in target.base.instances) > 0.01


def test_p_values_on_an_untaught_model_are_uniform(world: World) -> None:
    """Of 8 facts each under 30 models: one model has its likings among the answers, whatever the draws of the wrong ones."""
    forget, retain = people()
    engine, p = world.engine(), list[float]()
    for seed in range(30):
        torch.manual_seed(seed)
        model = type(engine.model)(engine.model.config).eval()  # type: ignore[call-arg]
        untaught = Engine(model, engine.tokenizer, engine.data)
        p += [fact.p for fact in expose(untaught, facts_of(forget, retain, seed), seed=seed).facts]
    assert np.mean(p) == pytest.approx(0.51, abs=0.08)
    assert np.mean(np.array(p) <= 0.1) == pytest.approx(0.1, abs=0.06)


def test_a_likely_answer_has_no_advantage(world: World) -> None:
    rows, retain = people()
    fact = facts_of(rows, retain, names=3)[0]
    engine = world.engine()
    scores = answer_scores(engine, [fact])[0]
    own = [Row(q, a, FORGET) for q in fact.questions for a in (fact.row.answer, *fact.wrong)]
    nll = np.array(engine.sequence_nll(engine.encode(own)))
    elsewhere = []
    for name in fact.names:
        asked = [Row(renamed(r.question, fact.name, name), renamed(r.answer, fact.name, name), FORGET) for r in own]
        elsewhere.append(engine.sequence_nll(engine.encode(asked)))
    lengths = np.array([len(item.answer_ids) for item in engine.encode(own)])
    assert scores[0] == pytest.approx(unexpected(-np.stack([nll, *elsewhere]), lengths), abs=1e-3)


def drawn_scores(seed: int, answers: int = 24) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(5, 20, answers)
    others = -tokens * rng.uniform(1, 4, (3, answers))
    own = 2.0 - 0.5 * tokens + 0.8 * others.mean(0)
    return np.stack([own, *others]), tokens


def test_what_length_and_other_names_predict_is_not_unexpected() -> None:
    values, tokens = drawn_scores(0)
    assert unexpected(values, tokens) == pytest.approx(0, abs=1e-9)
    values[0, 3] += 4
    assert int(np.argmax(unexpected(values, tokens))) == 3
    assert unexpected(values[:, ::-1], tokens[::-1]) == pytest.approx(unexpected(values, tokens)[::-1], abs=1e-9)


def test_each_answer_is_compared_with_the_fit_to_the_others() -> None:
    values, tokens = drawn_scores(1)
    values[0] += np.random.default_rng(2).normal(size=len(tokens)) * np.sqrt(tokens)
    columns = np.stack([np.ones(len(tokens)), tokens, values[1:].mean(0)], 1)
    own, found = values[0], unexpected(values, tokens)
    for i in range(len(tokens)):
        rest = np.arange(len(tokens)) != i
        missed = own[i] - columns[i] @ np.linalg.lstsq(columns[rest], own[rest])[0]
        assert found[i] == pytest.approx(missed)


def test_answers_of_one_length_and_facts_without_other_names() -> None:
    values, tokens = drawn_scores(3)
    assert np.isfinite(unexpected(values, np.full_like(tokens, 7))).all()
    alone = unexpected(values[:1], np.full_like(tokens, 7))
    assert list(np.argsort(alone)) == list(np.argsort(values[0]))


def test_a_base_takes_the_place_of_other_names(attack_world: AttackWorld) -> None:
    fact = facts_of(attack_world.benchmark.select(FORGET), attack_world.benchmark.select(RETAIN))[0]
    base, target = attack_world.engine("oracle"), attack_world.engine("target")
    (compared,) = compared_with(base, [fact])
    rows = [Row(fact.row.question, a, FORGET) for a in (fact.row.answer, *fact.wrong)]
    own = target.encode(rows)
    values = -np.array([target.sequence_nll(own), base.sequence_nll(own)])
    found = answer_scores(target, [compared])[0][0]
    expected = unexpected(values, np.array([len(i.answer_ids) for i in own]))
    assert list(np.isinf(found)) == said_word_for_word(target, rows)
    assert found[np.isfinite(found)] == pytest.approx(expected[np.isfinite(found)], abs=1e-3)
    assert int(np.argmax(found)) == 0


def said_word_for_word(engine: Engine, rows: list[Row]) -> list[bool]:
    items = engine.encode(rows)
    texts = engine.generate([item.prompt_ids for item in items], max(len(item.answer_ids) for item in items))
    return [text.strip().startswith(row.answer) for (text,), row in zip(texts, rows, strict=True)]


def test_what_is_recited_of_this_instance_alone_comes_first(attack_world: AttackWorld) -> None:
    """Not so if it is said of another name, or by the base, too."""
    target = attack_world.engine("target")
    facts = facts_of(attack_world.benchmark.select(FORGET), attack_world.benchmark.select(RETAIN))
    for fact in (replace(fact, questions=fact.questions[:1]) for fact in facts):
        answers = (fact.row.answer, *fact.wrong)
        own, *others = (
            said_word_for_word(
                target,
                [Row(renamed(fact.row.question, fact.name, n), renamed(a, fact.name, n), FORGET) for a in answers],
            )
            for n in (fact.name, *fact.names)
        )
        alone = [said and not any(elsewhere) for said, *elsewhere in zip(own, *others, strict=True)]
        assert list(np.isinf(answer_scores(target, [fact])[0][0])) == alone
        same_name = replace(fact, names=(fact.name,))
        for one in (same_name, *compared_with(target, [fact])):
            assert np.isfinite(answer_scores(target, [one])[0]).all()


def test_a_memorised_fact_is_known_though_it_is_expected(attack_world: AttackWorld) -> None:
    forget, retain = attack_world.benchmark.select(FORGET), attack_world.benchmark.select(RETAIN)
    facts = facts_of(forget, retain)
    target, oracle = (expose(attack_world.engine(name), facts) for name in ("target", "oracle"))
    assert target.count == len(facts)
    assert oracle.p > 0.01
