"""Every metric at its anchors: perfect, wrong everywhere, never trained, and nothing to measure."""

from __future__ import annotations

import math
from typing import Any

import pytest

from scopewise.data.rows import FORGET, RETAIN, Row
from scopewise.metrics import METRICS
from scopewise.metrics.base import Metric, mean
from scopewise.models.score import Answered
from scopewise.registry import lookup

ANSWER = "green tea"


def answered(scope: str, log_probs: list[float], hits: list[bool], text: str) -> Answered:
    return Answered(Row("What?", ANSWER, scope), tuple(log_probs), tuple(hits), text, text)


def perfect(scope: str) -> Answered:
    return answered(scope, [0.0, 0.0], [True, True], ANSWER)


def wrong(scope: str) -> Answered:
    return answered(scope, [-5.0, -5.0], [False, False], "black coffee")


def uniform(scope: str) -> Answered:
    """Uniform over 300 tokens, one of two tokens right and one of two words."""
    return answered(scope, [-math.log(300)] * 2, [True, False], "green coffee")


# (metric, split key, perfect, wrong everywhere, never trained); the values are derived in the comments.
ANCHORS = [
    ("unlearn_success", "val", 0, 100, 50),  # 100 - accuracy of the forget scope
    ("retention_success", "val", 100, 0, 50),  # accuracy of the retain scope
    ("average_success", "val", 50, 50, 50),  # (0 + 100)/2, (100 + 0)/2, (50 + 50)/2
    ("perplexity", "forget_val", 1, math.exp(5), 300),  # e^0, e^5, the vocabulary
    ("perplexity", "retain_val", 1, math.exp(5), 300),
    ("rouge_l_teacher_forced", "forget_val", 100, 0, 50),  # one of two words: precision = recall = F = 1/2
    ("rouge_l_teacher_forced", "retain_val", 100, 0, 50),
    ("rouge_l_generated", "forget_val", 100, 0, 50),
    ("rouge_l_generated", "retain_val", 100, 0, 50),
]


def metric(name: str) -> Metric:
    return lookup("metrics", name)()


@pytest.mark.parametrize(("name", "key", "at_perfect", "at_wrong", "at_uniform"), ANCHORS)
def test_anchors(name: str, key: str, at_perfect: float, at_wrong: float, at_uniform: float) -> None:
    for make, want in ((perfect, at_perfect), (wrong, at_wrong), (uniform, at_uniform)):
        value = metric(name).keyed([make(FORGET), make(RETAIN)], "val")[f"{name}/{key}"]
        assert value.value == pytest.approx(want), make
        assert value.skipped == ()


def test_every_metric_has_anchors() -> None:
    assert {name for name, *_ in ANCHORS} == set(METRICS)


def test_average_success_of_the_ideal() -> None:
    """All of the forget scope wrong, all of the retain scope right: (100 + 100) / 2."""
    assert metric("average_success").measure([wrong(FORGET), perfect(RETAIN)]).value == 100


def test_average_success_of_the_worst() -> None:
    assert metric("average_success").measure([perfect(FORGET), wrong(RETAIN)]).value == 0


def test_average_success_counts_each_scope_half_however_many_rows() -> None:
    """Forget: 0 over three rows; retain: 100 over one: (0 + 100)/2, not a mean over four rows."""
    assert metric("average_success").measure([perfect(FORGET)] * 3 + [perfect(RETAIN)]).value == 50


def test_scopes_are_not_mixed() -> None:
    rows = [wrong(FORGET), perfect(RETAIN)]
    assert metric("unlearn_success").keyed(rows, "val")["unlearn_success/val"].value == 100
    assert metric("retention_success").keyed(rows, "val")["retention_success/val"].value == 100
    assert metric("perplexity").keyed(rows, "val")["perplexity/retain_val"].value == pytest.approx(1)


def test_mean_is_over_rows_not_tokens() -> None:
    """One of 1 right (100) and 0 of 3 (0): the mean over rows is 50, over tokens 25."""
    rows = [answered(RETAIN, [0.0], [True], "x"), answered(RETAIN, [-1.0] * 3, [False] * 3, "x")]
    got = metric("retention_success").measure(rows)
    assert got.value == 50
    assert got.per_row == (100, 0)


def test_perplexity_is_the_geometric_mean_over_answers() -> None:
    """NLL of 1 and of 3 nats per token: exp(2), not (e + e³)/2; the two tokens of one answer are averaged first."""
    rows = [answered(RETAIN, [-0.5, -1.5], [True, True], "x"), answered(RETAIN, [-3.0], [True], "x")]
    assert metric("perplexity").measure(rows).value == pytest.approx(math.exp(2))


@pytest.mark.parametrize("name", METRICS)
def test_no_rows_is_none_with_a_reason(name: str) -> None:
    for value in metric(name).keyed([], "val").values():
        assert value.value is None
        assert value.skipped
        assert all("no rows" in reason for reason in value.skipped)


@pytest.mark.parametrize("name", METRICS)
def test_rows_without_tokens_or_words_are_none_with_a_reason(name: str) -> None:
    rows = [Answered(Row("What?", "—", scope), (), (), "", "") for scope in (FORGET, RETAIN)]
    for value in metric(name).keyed(rows, "val").values():
        assert value.value is None
        assert any("1 of 1 rows" in reason for reason in value.skipped)


@pytest.mark.parametrize("name", METRICS)
def test_a_row_without_tokens_or_words_is_left_out_and_counted(name: str) -> None:
    rows = [f(scope) for scope in (FORGET, RETAIN) for f in (perfect, lambda s: Answered(Row("?", "—", s), (), (), ""))]
    for value in metric(name).keyed(rows, "val").values():
        assert value.value is not None
        assert any("1 of 2 rows" in reason for reason in value.skipped)


def test_average_success_without_one_scope_is_none() -> None:
    value = metric("average_success").measure([perfect(FORGET)])
    assert value.value is None
    assert value.skipped == ("no rows",)


@pytest.mark.parametrize("bad", [-math.inf, math.nan])
def test_probability_zero_is_skipped_never_nan(bad: float) -> None:
    value = metric("perplexity").measure([answered(RETAIN, [bad], [False], "x"), perfect(RETAIN)])
    assert value.value == pytest.approx(1)
    assert "1 of 2 rows" in value.skipped[0]


def test_perplexity_beyond_floats_is_none_with_a_reason() -> None:
    value = metric("perplexity").measure([answered(RETAIN, [-800.0], [False], "x")])
    assert value.value is None
    assert "above" in value.skipped[0]


def test_empty_generation_is_zero_not_skipped() -> None:
    row: Any = Answered(Row("What?", ANSWER, RETAIN), (0.0,), (True,), "", "")
    assert metric("rouge_l_generated").measure([row]).value == 0


def test_mean_of_nothing() -> None:
    assert mean([], "why").value is None
