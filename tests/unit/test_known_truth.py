"""How well a localizer finds weights that are known to hold the forget scope (`benchmarks/known_truth.py`), in small."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from loading import module_of
from scopewise.localizers.base import Scopes, build_region
from scopewise.models.engine import Engine
from scopewise.models.matrices import matrices


@pytest.fixture(scope="module")
def script() -> Any:
    return module_of(Path(__file__).parents[2] / "benchmarks" / "known_truth.py")


def test_area_and_recall_by_hand(script: Any) -> None:
    """Of four pairs of a true unit and another three are in order, one is a tie. The two highest are the 3 and the first 2."""
    scores = {"w": torch.tensor([3.0, 1.0, 2.0, 2.0])}
    truth = {"w": torch.tensor([True, False, True, False])}
    assert script.area(scores, truth) == 3.5 / 4
    assert script.recall(scores, truth) == 1.0
    assert script.recall({"w": -scores["w"]}, truth) == 0.5


def test_the_truth_alone_learns_and_every_localizer_is_scored(script: Any, tiny: Any, encoded: Any) -> None:
    model, tokenizer = tiny
    truth = script.draw(model, "column", 0.2, seed=0)
    region = build_region("truth", {"unit": "column", "seed": 0}, matrices(model), truth, "column", {})
    before = {name: p.detach().clone() for name, p in matrices(model).items()}
    after = script.train(copy.deepcopy(model), tokenizer, encoded[0], 2.0, 4e-3, region)
    # A column is what one input is multiplied by: its largest change says whether it learnt.
    moved = {name: (p.detach() - before[name]).abs().amax(0) for name, p in matrices(after).items()}
    assert script.area(moved, {name: mask.flatten() for name, mask in truth.items()}) == 1.0
    found = script.measure(Engine(after, tokenizer), "column", truth, Scopes(*encoded, 0))
    assert set(found) == {*script.SCORED, "random"}
    assert all(0 <= value <= 1 for one in found.values() for value in one.values())
