"""Relearning: the scale and the curves by hand, a suppressed model that it must see through, and an oracle that it must not."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch

from attacking import ascended, engine, leak
from scopewise.attacks import suite
from scopewise.attacks.base import Facts, Work, make_attack
from scopewise.attacks.curves import Curve, curves_of, steps_to_recover
from scopewise.attacks.leakage import leakage
from scopewise.attacks.price import Price, measured
from scopewise.attacks.relearning import attacker, trained
from scopewise.bars import showing
from scopewise.config import AttackSection
from scopewise.data.prompt import encode
from scopewise.data.rows import FORGET, RETAIN
from scopewise.errors import ConfigError
from scopewise.eta import Whole
from scopewise.run_file import parse_config
from scopewise.testing.attacks import trained as taught


def test_the_maximum_counts_against_the_target_without_the_attack() -> None:
    """WGA of the first trial: at most 94.6 % of tokens, the oracle 33.9 %, the target 100 % before: 60.7 / 66.1 = .918.

    The target's own 51 % after the attack does not matter: by it the share would be 60.7 / 17.1.
    """
    unlearned = {"before": [0.055], "gentle": [0.946], "fierce": [0.772]}
    oracle = {"before": [0.22], "gentle": [0.339], "fierce": [0.32]}
    target = {"before": [1.0], "gentle": [1.0], "fierce": [0.51]}
    found = leakage(unlearned, oracle, target, ["x"], "recovery")
    assert found.value == pytest.approx(0.607 / 0.661)
    assert found.setting == "gentle"
    assert (found.unlearned, found.oracle, found.target) == (0.946, 0.339, 1.0)
    assert found.by_setting["before"] == pytest.approx((0.055 - 0.339) / 0.661)


def test_below_the_oracle_is_a_finding() -> None:
    """-.5 for all five instances, in every resample: clearly below -0.1, and within a threshold of .6."""
    zero, one = {"a": [0.4] * 5}, {"a": [0.8] * 5}
    found = leakage({"a": [0.2] * 5}, zero, one, list("vwxyz"))
    assert found.verdict(0.1) == "over-unlearned"
    assert found.verdict(0.6) == "holds"


def test_steps_to_recover_are_those_of_the_fastest_curve() -> None:
    """The level is halfway from .25 to 1: .625. The model is there at step 5 of the second curve; the oracle never is."""
    slow = Curve("slow", (0, 5, 20), (0.1, 0.3, 0.625), (0.25, 0.25, 0.375), (1.0, 1.0, 0.9))
    fast = Curve("fast", (0, 5, 20), (0.1, 0.625, 0.25), (0.25, 0.25, 0.375), (1.0, 0.4, 0.1))
    assert steps_to_recover([slow, fast]) == {"level": 0.625, "unlearned": 5, "oracle": None, "most": 20}
    assert steps_to_recover([slow])["unlearned"] == 20
    alike = Curve("alike", (0,), (0.5,), (0.5,), (0.5,))
    assert steps_to_recover([alike]) is None


def test_curves_are_means_over_rows() -> None:
    points = {"one": [(0, "before"), (3, "one, 3 steps")]}
    pieces = [
        {"curves": points, "signals": {"before": [low, low, None], "one, 3 steps": [low, high, None]}}
        for low, high in ((0.0, 1.0), (0.0, 0.5), (1.0, 0.0))
    ]
    (curve,) = curves_of(*pieces)
    assert curve == Curve("one", (0, 3), (0.0, 0.5), (0.0, 0.25), (1.0, 0.5))


@pytest.fixture(scope="module")
def shallow(attacked: Any) -> Any:
    """The target after shallow unlearning: as many tokens right as the oracle, and the facts still there."""
    return ascended(attacked)


def test_what_was_only_suppressed_comes_back_and_the_oracle_learns_nothing(attacked: Any, shallow: Any) -> None:
    asked = leak(attacked, shallow, "question")
    again = leak(attacked, shallow, "relearning", steps=20, learning_rates=[6e-4])
    assert asked.verdict == "holds"
    assert again.leakage.by_setting["before"] < 0
    assert again.leakage.value > 0.3
    assert again.leakage.low > 0.1
    assert again.verdict == "few instances"  # four are asked
    found = again.document()["steps_to_recover"]
    assert found["unlearned"] == 20
    assert found["oracle"] is None
    assert [(curve.name, curve.steps) for curve in again.curves] == [("held, full, rate 0.0006", (0, 5, 10, 20))]


def test_a_second_oracle_does_not_leak(attacked: Any) -> None:
    """It was taught the retain rows for longer, and never the others."""
    benchmark, tokenizer, _, oracle = attacked
    second = taught(oracle, encode(benchmark.select(RETAIN), tokenizer), 20, 1e-3)
    again = leak(attacked, second, "relearning", steps=20, learning_rates=[6e-4])
    assert again.leakage.value < 0.2
    assert again.leakage.low < 0.1
    assert again.document()["steps_to_recover"]["unlearned"] is None


def test_the_full_suite_has_all_data_with_both_kinds_of_parameters(attacked: Any) -> None:
    facts = Facts(attacked[0], AttackSection(suite="full"), learning_rate=1e-3)
    attack = make_attack("relearning", steps=1)
    outcome = attack.run(engine(attacked, "target", attacked[2]), facts, engine(attacked, "target", attacked[2]))
    assert len(outcome.curves) == 5 * 3 * 2
    assert {name.partition(",")[0] for name in outcome.curves} == {"held", "retain", "general"}
    assert "held, lora, rate 0.02" in outcome.curves  # 2 · 1e-3, tenfold for LoRA
    assert "held, full, rate 2e-05" in outcome.curves
    assert set(outcome.signals) == {"before"} | {s for points in outcome.curves.values() for _, s in points}
    half = len(facts.tested) / len(facts.rows)
    assert attack.work(facts) == Work(steps=30, passes=half * (1 + 30))


@pytest.mark.parametrize("parameters", ["full", "lora"])
def test_the_model_is_as_it_was(parameters: Any, attacked: Any) -> None:
    subject = engine(attacked, "target", attacked[2])
    before = copy.deepcopy(subject.model.state_dict())
    modules = [type(m) for m in subject.model.modules()]
    with attacker(subject, parameters, 0) as lent:
        steps = list(trained(lent, attacked[0].select(FORGET), 4, 3, 1e-2, 0, "x"))
        moved = any(not torch.equal(p, before.get(n, p)) for n, p in lent.model.named_parameters())
        adapters = [p for n, p in lent.model.named_parameters() if "lora_B" in n]
    assert steps == [1, 2, 3]
    assert moved if parameters == "full" else all(bool(b.abs().sum() > 0) for b in adapters)
    assert [type(m) for m in subject.model.modules()] == modules
    after = subject.model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert not any(p.requires_grad for p in subject.model.parameters())


def test_a_model_that_diverges_knows_nothing(attacked: Any) -> None:
    again = leak(attacked, attacked[2], "relearning", steps=4, learning_rates=[1e30])
    assert again.leakage.value == pytest.approx(1.0)  # before the attack
    assert again.curves[0].unlearned[-1] < 0.2


def test_a_model_that_knows_relearns_in_fewer_steps_than_the_oracle(attacked: Any, shallow: Any) -> None:
    found = leak(attacked, shallow, "relearning_speed", steps=10, learning_rates=[1e-3])
    steps = found.document()["steps_to_recover"]
    assert (steps["unlearned"], steps["oracle"], steps["most"]) == (10, None, 10)


def test_the_price_is_work_times_measured_seconds(attacked: Any) -> None:
    """40 steps of .5 s and 3 passes of 2 s: 26 s; two models 52 s."""
    facts = Facts(attacked[0], AttackSection(), learning_rate=1e-3)
    assert Price(0.5, 2.0).of(Work(40, 3)) == 26.0
    attack = make_attack("relearning", steps=20, learning_rates=[1e-3, 1e-4])
    assert attack.work(facts).steps == 40
    assert attack.work(facts).passes == 0.5 * (1 + 2 * 3)
    assert "2 runs" in Price(0.5, 2.0).sentence([(attack, facts)] * 2)
    two = Price(0.5, 2.0).whole([("target", attack), ("oracle", attack)], facts)
    assert two.left() == pytest.approx(2 * Price(0.5, 2.0).of(attack.work(facts)))
    subject = engine(attacked, "target", attacked[2])
    before = copy.deepcopy(subject.model.state_dict())
    price = measured(subject, facts)
    assert price.step > 0
    assert price.one_pass > 0
    assert all(torch.equal(subject.model.state_dict()[key], value) for key, value in before.items())


def test_each_attack_is_a_part_of_the_whole_and_its_speed_counts(
    attacked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark, _, target, oracle = attacked
    shown: list[Whole] = []
    monkeypatch.setattr(suite, "showing", lambda whole: shown.append(whole) or showing(whole))
    section = AttackSection(attacks=("question", "quantization"))
    models = [
        partial(engine, attacked, name, one) for name, one in (("m", target), ("oracle", oracle), ("target", target))
    ]
    said: list[str] = []
    suite.attack_models({"m": models[0]}, *models[1:], benchmark, section, tell=said.append)
    assert "6 runs" in said[0]
    assert shown[0].title == "6/6 m: quantization"
    assert shown[0].left() == 0
    assert {"question", "quantization"} < set(shown[0].speeds)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"learning_rates": []}, "learning_rates"),
        ({"learning_rates": 0.1}, "learning_rates"),
        ({"data": ["held", "others"]}, r"data\[1\]"),
        ({"parameters": ["qlora"]}, r"parameters\[0\]"),
    ],
)
def test_wrong_sweeps_are_refused(arguments: Any, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"attack\.attack_args\.relearning\.{key}: "):
        make_attack("relearning", **arguments)


def test_names_of_earlier_versions_say_what_they_are_now() -> None:
    with pytest.raises(ConfigError, match=r"relearning-retain.*data=\[retain\]"):
        parse_config({"attack": {"attacks": ["relearning-retain"]}})
    with pytest.raises(ConfigError, match=r"relearning\.learning_rates"):
        parse_config({"attack": {"learning_rate": 1e-4}})
