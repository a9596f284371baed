"""Bootstrap intervals: what can be said of them without drawing, and that differences are paired."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scopewise.report.comparison import compare
from scopewise.statistics import mean_of, resample


def test_constant_rows_have_no_spread() -> None:
    assert resample([[3.0] * 7] * 2).interval().low == 3.0
    assert resample([[3.0] * 7] * 2).interval().high == 3.0


def test_width_is_that_of_the_mean() -> None:
    """400 rows of 0 and 100, half each: standard error 50 / √400 = 2.5, so the interval is 50 ± 1.96 · 2.5 = ± 4.9."""
    interval = resample([[0.0, 100.0] * 200]).interval()
    assert interval.value == 50.0
    assert interval.low == pytest.approx(45.1, abs=0.7)
    assert interval.high == pytest.approx(54.9, abs=0.7)


def test_seeds_widen_the_interval() -> None:
    """Two seeds at 0 and 100: a quarter of the resamples has seed 0 alone, a quarter seed 1 alone."""
    interval = resample([[0.0] * 50, [100.0] * 50]).interval()
    assert (interval.value, interval.low, interval.high) == (50.0, 0.0, 100.0)


def test_differences_are_paired() -> None:
    """One method is 5 points better on every row, rows differ wildly: the difference has no spread at all."""
    rows = list(np.random.default_rng(0).uniform(0, 90, 60))
    difference = (resample([[r + 5 for r in rows]]) - resample([rows])).interval()
    assert difference.value == pytest.approx(5.0)
    assert difference.low == pytest.approx(5.0)
    assert difference.high == pytest.approx(5.0)


def test_average_is_the_mean_of_both_scopes_whatever_their_rows() -> None:
    together = mean_of([resample([[0.0] * 5]), resample([[100.0] * 50])]).interval()
    assert (together.low, together.value, together.high) == (50.0, 50.0, 50.0)


def row(method: str, protocol: str | None, seed: int = 0) -> dict:
    return {"method": method, "protocol": protocol, "seed": seed}


def values(unlearn: float, retention: float) -> dict:
    keys = {"unlearn_success/val": [float(unlearn)] * 4, "retention_success/val": [float(retention)] * 6}
    return {key: {"value": v[0], "per_row": v} for key, v in keys.items()}


def test_compare() -> None:
    """Oracle 60/100. a: 100/80 and 80/80 → average (90 + 80)/2 = 85, gap (30 + 20)/2 = 25. b: 60/90 → 75, gap 5."""
    rows = [row("target", None), row("oracle", None), row("a", "paper"), row("a", "paper", 1), row("b", "paper")]
    found = compare(rows, [values(0, 100), values(60, 100), values(100, 80), values(80, 80), values(60, 90)])
    by = {c["method"]: c for c in found}
    assert [c["method"] for c in found] == ["target", "oracle", "a", "b"]
    assert by["a"]["success"]["average_success"]["value"] == 85
    assert by["a"]["success"]["unlearn_success"]["low"] == 80
    assert by["a"]["oracle_gap"]["value"] == 25
    assert by["b"]["oracle_gap"] == {"value": 5, "low": 5, "high": 5}
    assert by["oracle"]["oracle_gap"]["high"] == 0
    assert by["a"]["differences"]["b"]["value"] == 10
    assert by["b"]["differences"]["a"]["value"] == -10
    assert by["target"]["differences"] == {}


def test_compare_without_oracle_or_rows() -> None:
    assert compare([row("a", "paper")], [values(1, 2)])[0]["oracle_gap"] is None
    assert compare([row("a", "paper")], [{}]) == []
    assert not any(
        math.isnan(x) for x in compare([row("a", "paper")], [values(1, 2)])[0]["success"]["average_success"].values()
    )
