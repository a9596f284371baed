"""Detectability: the classifier by hand, an over-unlearned model that it must find, and an oracle that it must not."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

from attacking import ascended, leak
from scopewise.attacks.base import Facts
from scopewise.attacks.membership import _folds, _placements, logistic, swapped
from scopewise.config import AttackSection
from scopewise.data.prompt import encode
from scopewise.data.rows import RETAIN
from scopewise.testing.attacks import trained


def test_the_classifier_is_a_penalised_logistic_regression() -> None:
    """One feature of +-1, classes apart: x = y = +-1 twice each, so beta solves 4 · s(-b) = b, which is b = 1.1623...

    The gradient of the loss is -sum x (y - p) = -4 (1 - s(b)) by symmetry, and the penalty's is b.
    """
    x = np.array([[1.0], [1.0], [-1.0], [-1.0]])
    (odds,) = logistic(x, np.array([True, True, False, False]), np.array([[1.0]]))
    assert 4 / (1 + math.exp(odds)) == pytest.approx(odds, abs=1e-6)


def test_no_instance_is_in_two_folds() -> None:
    assert _folds(["a", "b", "a", "c", "b"], paired=False) == {"a": 0, "b": 1, "c": 2}
    assert _folds(list("abcdefgh"), paired=True) == {name: i % 2 for i, name in enumerate("abcdefgh")}
    assert set(_folds(list("abc"), paired=True).values()) == {0}


def test_a_feature_that_tells_gives_an_auc_of_1_either_way_and_noise_about_a_half() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 4 == 0
    folds = np.arange(400) // 4 % 5
    for sign in (1, -1):  # lower is as telling as higher
        telling = np.column_stack([sign * labels + 0.01 * rng.normal(size=400), rng.normal(size=400)])
        assert np.mean(_placements(telling, labels, folds)) == 1.0
    assert np.mean(_placements(rng.normal(size=(400, 9)), labels, folds)) == pytest.approx(0.5, abs=0.1)


def chance(found: Any) -> tuple[float, float, float]:
    """Return the AUC and the interval of chance of the note."""
    return tuple(map(float, re.findall(r"\d\.\d\d", found.notes[0])[:3]))


def test_it_finds_which_facts_a_model_was_made_to_forget(attacked: Any) -> None:
    """Random labels: a model that gives any answer but the right one tells by its silence what was forgotten."""
    facts = Facts(attacked[0], AttackSection())
    wrong = [other for row in facts.rows for other in swapped(facts, row, 3)]
    model = ascended(attacked, 40, 2e-3, wrong)
    found = leak(attacked, model, "detectability", rows=16)
    auc, _, high = chance(found)
    assert auc > high
    assert found.leakage.unlearned == pytest.approx(auc, abs=0.01)
    assert found.leakage.value > 0.5
    assert leak(attacked, model, "membership").leakage.value < 0.2  # which takes unlikely answers for unseen ones


def test_it_finds_nothing_in_a_second_oracle(attacked: Any) -> None:
    benchmark, tokenizer, _, oracle = attacked
    second = trained(oracle, encode(benchmark.select(RETAIN), tokenizer), 20, 1e-3)
    found = leak(attacked, second, "detectability")
    auc, low, high = chance(found)
    assert low <= auc <= high
    assert found.verdict != "leaks"
