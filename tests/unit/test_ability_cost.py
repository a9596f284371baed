"""What unlearning costs in ability: differences and the table by hand."""

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


def test_a_question_without_a_score_is_left_out() -> None:
    """Of three questions two have both scores: differences 100 and 0. A collapsed model has no perplexity."""
    target = {"one": [0.0, 50.0, 100.0], COST.PERPLEXITY: [20.0]}
    other = {"one": [100.0, None, 100.0], COST.PERPLEXITY: [None]}
    assert COST.difference(other, target)[0] == 50
    assert "| other | 100.0 | +50.0 [-48.0, 148.0] |  |" in COST.table({"target": target, "other": other})
