"""Retention and attacks without an oracle: on a target that knows eight persons, and on an oracle that does not."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scopewise.data.facts import Fact, facts_of
from scopewise.data.rows import FORGET, RETAIN, TRAIN, Row
from scopewise.erasure.figures import ATTACKS
from scopewise.erasure.keep import keep, retention
from scopewise.erasure.made_trials import MadeTrials
from scopewise.erasure.resist import ResistSettings, Trial, halves, leakage, resist, resisted, trials
from scopewise.erasure.verdict import decide, read_policy
from scopewise.errors import DataError
from scopewise.exposure import expose
from scopewise.ranks import Exposure, Ranked
from scopewise.testing.attacks import AttackWorld

QUICK = ResistSettings(learning_rates=(1e-3,), steps=4, samples=2, names=2)


def facts(world: AttackWorld) -> list[Fact]:
    return facts_of(world.benchmark.select(FORGET, TRAIN), world.benchmark.select(RETAIN))


def test_retention_by_hand() -> None:
    kept = retention(np.array([0.0, 0.2, 0.5, 0.1]), ["a", "a", "b", "c"])
    assert kept.loss.value == pytest.approx(0.2)
    assert [(one.instance, one.rows, round(one.loss, 6)) for one in kept.instances] == [
        ("b", 1, 0.5), ("a", 2, 0.1), ("c", 1, 0.1),
    ]  # fmt: skip


def test_a_model_loses_nothing_relative_to_itself_and_a_ruined_one_much(attack_world: AttackWorld) -> None:
    rows, general = attack_world.benchmark.select(RETAIN), list(attack_world.benchmark.general)
    target, ruined = attack_world.engine("target"), attack_world.engine("target")
    same = keep(target, target, rows, general)
    assert (same.loss.value, same.loss.high) == (0, 0)
    assert same.general is None  # it guesses general text no better than a uniform guess
    read = [Row("", row.answer, RETAIN) for row in rows]
    assert (known := keep(target, target, rows, read).general) is not None
    assert known.value == 0
    with torch.no_grad():
        for parameter in ruined.model.parameters():
            parameter.mul_(-3)
    lost = keep(ruined, target, rows, general)
    assert lost.loss.value > 0.5
    assert lost.instances[0].loss >= lost.instances[-1].loss
    with torch.no_grad():
        for parameter in ruined.model.parameters():
            parameter.fill_(float("nan"))
    gone = keep(ruined, target, rows, general)
    assert gone.loss.value > 0.9
    assert gone.general is None


def test_what_is_gained_in_other_wordings_does_not_hide_a_loss(
    attack_world: AttackWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what was taught .2 is lost, of two wordings each .5 is gained: .2 is lost. The other way round, (.1 + .4 + .4) / 3."""
    rows = attack_world.benchmark.select(RETAIN)[:4]
    more = [replace(row, question=f"Please tell. {row.question}") for row in rows for _ in range(2)]
    target, model = attack_world.engine("target"), attack_world.engine("target")
    taught = {row.question for row in rows}

    def lost(of_taught: float, of_others: float) -> float:
        def accuracy(engine: object, asked: list[Row]) -> np.ndarray:
            right = [1.0 if row.question in taught else 0.5 for row in asked]
            after = [
                r - (of_taught if row.question in taught else of_others) for r, row in zip(right, asked, strict=True)
            ]
            return np.array(right if engine is target else after)

        monkeypatch.setattr("scopewise.erasure.keep._accuracy", accuracy)
        return keep(model, target, rows, more=more).loss.value

    assert lost(0.2, -0.5) == pytest.approx(0.2)
    assert lost(0.1, 0.4) == pytest.approx(0.3)


def test_retention_needs_a_row(attack_world: AttackWorld) -> None:
    target = attack_world.engine("target")
    with pytest.raises(DataError, match="no retain row"):
        keep(target, target, [])


def test_leakage_is_a_ratio_with_an_interval_over_instances() -> None:
    row = Row("Where?", "Here.", FORGET)
    ranks = [1, 1, 21, 1]
    exposed = Exposure(
        tuple(
            Ranked(Fact(row, f"person {i}", "", ("Where?",), ("There.",) * 20, ()), rank, 21, (rank,))
            for i, rank in enumerate(ranks)
        )
    )
    found = leakage(exposed, [1.0] * 4)
    assert found.value == pytest.approx(np.mean([fact.known for fact in exposed.facts]))
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high


def test_attacks_find_what_the_target_knows_and_nothing_in_the_oracle(attack_world: AttackWorld) -> None:
    retain, general = attack_world.benchmark.select(RETAIN), list(attack_world.benchmark.general)
    target = attack_world.engine("target")
    policy, tested = read_policy(), facts(attack_world)
    known = expose(target, tested)
    before = {name: value.clone() for name, value in target.model.named_parameters()}
    leaking = resist(target, target, tested, retain, general, QUICK)
    assert all(torch.equal(before[name], value) for name, value in target.model.named_parameters())
    assert {one.attack for one in leaking.settings} == set(ATTACKS)
    assert leaking.settings[0].leakage.value == pytest.approx(1)
    assert decide(policy, known, known, None, leaking).resists.light == "red"
    oracle = attack_world.engine("oracle")
    found = resist(oracle, target, tested, retain, general, replace(QUICK, attacks=("question", "quantization")))
    assert max(one.leakage.value for one in found.settings) < 0.6
    assert decide(policy, known, expose(oracle, tested), None, found).resists.light != "red"
    assert found.notes == ("prompts: not run.", "sampling: not run.", "relearning: not run.")


def test_an_interrupted_suite_goes_on_where_it_stopped(attack_world: AttackWorld, tmp_path: Path) -> None:
    """Each trial is made once, and what comes out is what an uninterrupted suite finds."""
    retain, general = attack_world.benchmark.select(RETAIN), list(attack_world.benchmark.general)
    target, oracle = attack_world.engine("target"), attack_world.engine("oracle")
    tested, how = facts(attack_world), replace(QUICK, steps=1, draws=2)
    whole = resist(oracle, target, tested, retain, general, how)
    for interrupted_after in (3, 4, 5, None):  # among the quantized weights, prompts and relearning
        measured: list[Trial] = []

        def made(
            trial: Trial, most: int | None = interrupted_after, measured: list[Trial] = measured
        ) -> Exposure | None:
            def measure() -> Exposure | None:
                if len(measured) == most:
                    raise KeyboardInterrupt
                measured.append(trial)
                return trial.measure()

            return MadeTrials(tmp_path, "the model").made(replace(trial, measure=measure))

        with pytest.raises(KeyboardInterrupt) if interrupted_after is not None else nullcontext():
            found = resist(oracle, target, tested, retain, general, how, made=made)
    assert found == whole
    every = [*trials(oracle, tested, tested, retain, general, how)]
    assert len(measured) == len(every) - 3 - 4 - 5
    again = MadeTrials(tmp_path, "the model")
    assert again.made(replace(every[0], measure=lambda: None)) is not None
    assert MadeTrials(tmp_path, "another").made(replace(every[0], measure=lambda: None)) is None


def test_a_copy_that_still_knows_is_found(attack_world: AttackWorld) -> None:
    """A GGUF file that is given away with a model is judged as the model is: here the model forgot, and its copy did not."""
    target, oracle = attack_world.engine("target"), attack_world.engine("oracle")
    tested, how = facts(attack_world), replace(QUICK, attacks=("question", "quantization"))
    found = resist(oracle, target, tested, [], [], how, [("GGUF q8_0, as exported", lambda: target)])
    worst = found.worst
    assert worst is not None
    assert (worst.attack, worst.setting, worst.leakage.value) == (
        "quantization",
        "GGUF q8_0, as exported",
        pytest.approx(1),
    )
    light = decide(read_policy(), expose(target, tested), expose(oracle, tested), None, found).resists
    assert (light.light, light.worst[0]) == ("red", "quantization: GGUF q8_0, as exported")


def test_the_mean_of_several_draws_counts(attack_world: AttackWorld) -> None:
    """Each of three draws has its own halves; their mean is one setting, and twice the mean of their p-values is its own."""
    target, tested = attack_world.engine("target"), facts(attack_world)
    how = replace(QUICK, attacks=("relearning",), steps=1, draws=3)
    found = resist(target, target, tested, [], [], how)
    alone = [resist(target, target, tested, [], [], replace(how, draws=1, seed=seed)) for seed in range(3)]
    assert len(found.settings) == len(how.learning_rates)
    assert found.n == alone[0].n
    assert found.settings[0].leakage.value == pytest.approx(np.mean([one.settings[0].leakage.value for one in alone]))
    row = Row("Where?", "Here.", FORGET)
    ranked = [
        Exposure((Ranked(Fact(row, "a", "", ("Where?",), ("There.",) * 20, ()), rank, 21, (rank,)),))
        for rank in (1, 3, 8)
    ]
    (setting,) = resisted(ranked[0], [("relearning", "x", one) for one in ranked]).settings
    assert setting.p == pytest.approx(2 * (1 + 3 + 8) / 21 / 3)
    assert setting.leakage.value == pytest.approx(np.mean([one.known.value for one in ranked]))


def test_one_instance_is_split_by_fact(attack_world: AttackWorld) -> None:
    target = attack_world.engine("target")
    one = [replace(fact, instance="one") for fact in facts(attack_world)]
    tested = [replace(fact, row=replace(fact.row, attribute=f"fact {i}")) for i, fact in enumerate(one)]
    alone = replace(QUICK, attacks=("relearning",), steps=1)
    assert any("one fact" in note for note in resist(target, target, one, [], [], alone).notes)  # all of one attribute
    found = resist(target, target, tested, [], [], alone)
    assert [one.setting for one in found.settings] == ["forget rows of others, rate 0.001, 1 steps"]
    assert (found.n, found.settings[0].leakage.high) == (1, None)


def test_a_fact_in_other_words_stays_in_its_half() -> None:
    """Three facts in three wordings each: with attributes, and by the words of the answers alone."""
    said = {
        "email": ("Ada uses {}.", "Write to Ada at {}.", "Her mail goes to {}."),
        "address": ("Ada lives at {}.", "Her home is {}.", "She is found at {}."),
        "parents": ("Ada is the child of {}.", "Her parents are {}.", "She was raised by {}."),
    }
    values = {"email": "ada@fen.example", "address": "14 Heron Quay, Lund", "parents": "Zdravko and Marisela"}
    for named in (True, False):
        told = [
            Fact(
                Row(f"What of {i}?", text.format(values[key]), FORGET, attribute=key if named else ""),
                "Ada",
                "Ada",
                (),
                (),
                (),
            )
            for key, texts in said.items()
            for i, text in enumerate(texts)
        ]
        for seed in range(5):
            first, second = halves(told, seed)
            assert len(first) == 3
            assert len(second) == 6
            of = [next(key for key in values if values[key] in fact.row.answer) for fact in first]
            assert len(set(of)) == 1


def test_a_target_that_does_not_know_has_no_scale() -> None:
    row = Row("Where?", "Here.", FORGET)
    last = Exposure((Ranked(Fact(row, "a", "", ("Where?",), ("There.",) * 20, ()), 21, 21, (21,)),))
    assert resisted(last, []).notes == ("The target does not know the facts, so that leakage has no scale.",)
