"""The study whether built and released questions agree: the persons, and the statistic."""

from __future__ import annotations

import json
import sys
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
