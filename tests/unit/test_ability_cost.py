"""What unlearning costs in ability: differences by hand, and a run of a small model."""

from __future__ import annotations

from pathlib import Path

import pytest

from loading import module_of

COST = module_of(Path(__file__).parents[2] / "benchmarks" / "ability_cost.py")


def test_differences_are_paired_by_question() -> None:
    """Differences 100, 0, 0, -100, 100 of five questions: mean 20, standard deviation 83.67, standard error 37.42."""
    target = {"one": [0.0, 100.0, 0.0], "two": [100.0, 0.0], COST.PERPLEXITY: [20.0]}
    other = {"one": [100.0, 100.0, 0.0], "two": [0.0, 100.0], COST.PERPLEXITY: [40.0]}
    assert COST.difference(other, target) == pytest.approx((20, 20 - 73.34, 20 + 73.34), abs=0.01)
    text = COST.table({"target": target, "other": other})
    assert "| target | 33.3 | 50.0 |  | 20.0 |" in text
    assert "| other | 66.7 | 50.0 | +20.0 [-53.3, 93.3] | 40.0 |" in text
