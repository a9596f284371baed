"""The study whether built and released questions agree: the persons, and the statistic."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loading import module_of
from scopewise.building.known import forget_facts
from scopewise.data.rows import SCOPES

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    return module_of(BENCHMARKS / "agreement.py")


def test_the_ten_persons_are_built(script: Any, tmp_path: Path) -> None:
    """Each has parents, e-mail address and home to forget; every released fact was given as an attribute only."""
    rows, sheet = script.built(tmp_path / "persons")
    assert sheet["instances"] == 10
    assert {scope: len({r.instance for r in rows if r.scope == scope}) for scope in SCOPES} == {
        "forget": 10,
        "retain": 10,
    }
    assert len(forget_facts(iter(rows))) == 30


def test_rank_correlation_by_hand(script: Any) -> None:
    """Three models in the same order: 1. In the opposite order: -1. All persons agree, so the interval is a point."""
    released = np.array([[0.1, 0.1], [0.5, 0.5], [0.9, 0.9]])
    assert script.correlation(released, released + 0.05) == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert script.correlation(released, -released) == {"value": -1.0, "low": -1.0, "high": -1.0}


def test_the_recorded_study() -> None:
    """The target knows most facts by the built questions; base and oracle know what chance gives (5 % of 30 is 1.5)."""
    found = json.loads((BENCHMARKS / "results" / "agreement.json").read_text())
    known = {name: one["known"] for name, one in found["exposure"].items()}
    assert known["target"] >= 20
    assert max(known["base"], known["oracle"]) <= 4
    assert found["rank_correlation"]["forget"]["low"] > 0.7
    assert len(found["models_compared"]) >= 30


def test_the_other_forms_take_the_same_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual wording and the released questions have the true value and the wrong ones of the built row, and no others."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    tries = module_of(BENCHMARKS / "agreement_tries.py")
    rows, values = tries.built(6)
    facts = tries.single(rows)
    fact = next(one for one in facts if one.row.attribute == "email")
    email = values[fact.instance, "email"]
    wrong = [text.split()[-1] for text in fact.wrong]
    asked = tries.usual(fact, values)
    assert asked.row.answer == f"{fact.instance}'s email address is {email}."
    assert [text.split()[-1] for text in asked.wrong] == wrong
    row = replace(fact.row, question=f"How is {fact.instance} reached?", answer=f"Write to {email} at any time.")
    (own,) = tries.released([fact], values, [row])
    assert own.row.answer == f"Write to {email}"
    assert [f"{text.split()[-1]}." for text in own.wrong] == wrong
    assert {len(one.questions) for one in facts} == {1}
    assert {len(one.questions) for one in forget_facts(iter(rows))} == {3}


def test_the_recorded_forms() -> None:
    """Three questions reach the goal of 80 %, and the oracle knows what chance gives; the target recites what it was asked."""
    forms = json.loads((BENCHMARKS / "results" / "agreement_tries.json").read_text())["forms"]
    three = forms["three wordings"]
    assert three["target"]["known"] >= 0.8 * three["facts"]
    assert three["oracle"]["known"] <= 4
    released = forms["released questions, 24 wrong answers of the builder"]
    assert released["recited"] == released["facts"] == 20
