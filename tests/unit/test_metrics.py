"""Every metric at its anchors: perfect, wrong everywhere, never trained, and nothing to measure."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from scopewise.data.rows import FORGET, RETAIN, Row
from scopewise.metrics import METRICS
from scopewise.metrics.base import Answered, mean
from scopewise.models.score import Scored
from scopewise.registry import lookup

ANSWER = "Uji tea"
LOW = -5.0
EVEN = -math.log(300)


def answered(scope: str, log_probs: list[float], hits: list[bool], text: str, **others: Any) -> Answered:
    return Answered(Row("What?", ANSWER, scope), Scored(tuple(log_probs), tuple(hits)), text, text, **others)


def one(log_prob: float) -> Scored:
    return Scored((log_prob,), (log_prob == 0,))


def perfect(scope: str) -> Answered:
    """Certain of the answer and its paraphrase, sure that the wrong ones are wrong."""
    return answered(
        scope, [0.0, 0.0], [True, True], ANSWER, paraphrase=one(0.0), perturbed=(one(LOW), one(LOW)), contradicts=False,
        contradicted=False, fluency=1.0,
    )  # fmt: skip


def wrong(scope: str) -> Answered:
    """The other way round."""
    return answered(
        scope, [LOW, LOW], [False, False], "black coffee", paraphrase=one(LOW), perturbed=(one(0.0), one(0.0)),
        contradicts=True, contradicted=True, fluency=0.5,
    )  # fmt: skip


def uniform(scope: str) -> Answered:
    """Uniform over 300 tokens, one of two tokens right and one of two words."""
    return answered(
        scope,
        [EVEN] * 2,
        [True, False],
        "Uji coffee",
        paraphrase=one(EVEN),
        perturbed=(one(EVEN), one(EVEN)),
        fluency=0.0,
    )


P = math.exp(LOW)
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
    ("rouge_l_recall", "forget_val", 1, 0, 0.5),
    ("rouge_1_recall", "retain_val", 1, 0, 0.5),
    ("probability", "forget_val", 1, P, 1 / 300),
    ("probability_paraphrase", "retain_val", 1, P, 1 / 300),
    ("probability_normalised", "retain_val", 1 / (1 + 2 * P), P / (P + 2), 1 / 3),  # among the truth and two wrong ones
    ("truth_ratio", "forget_val", 1 / (1 + P), P / (1 + P), 0.5),  # R = e^-5, e^5, 1
    ("truth_ratio_forget", "val", P, P, 1),  # min(R, 1/R)
    ("truth_ratio_retain", "retain_val", 1 - P, 0, 0),  # max(0, 1 - R)
    ("truth_ratio_raw", "val", P, 1 / P, 1),
    ("exact_memorization", "forget_val", 1, 0, 0.5),
    (
        "extraction_strength",
        "forget_val",
        1,
        0.5,
        0.5,
    ),  # k = 0; k = n - 1 = 1 of 2, the reference's floor; second wrong: 1
    ("entity_coverage", "forget_val", 1, 0, 1),  # the answer's one name is Uji
    ("kfr", "val", 0, 1, 0),  # covered and not contradicted; neither; covered, without a judge
    ("krr", "val", 1, 0, 1),
    ("degeneration", "forget_val", 0, 0, 0),  # wrong is not broken
    ("fluency", "forget_val", 1, 0.5, 0),
    ("multiple_choice_accuracy", "forget_val", 100, 0, 0),  # 0 > -5; 2·(-5) < 0; two tokens against one: 2·EVEN < EVEN
    ("exact_match_generated", "retain_val", 1, 0, 0),
    ("rwku_rouge_l", "forget_val", 1, 0, 0.5),  # of the answer's two words one
]
ELSEWHERE = {
    "repetition", "linguistic_score", "mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus", "mia_reference",
    "mia_gradnorm", "privleak", "rel_diff", "forget_quality", "model_utility", "memorization", "privacy", "utility",
    "overall", "task_aggregate",
}  # fmt: skip
"""Measures of texts, of two sets of rows, or of other measures; their anchors are in test_measures.py and
test_benchmark_suites.py."""
ROW_METRICS = [name for name in METRICS if name not in ELSEWHERE]


def metric(name: str) -> Any:
    return lookup("metrics", name)()


@pytest.mark.parametrize(("name", "key", "at_perfect", "at_wrong", "at_uniform"), ANCHORS)
def test_anchors(name: str, key: str, at_perfect: float, at_wrong: float, at_uniform: float) -> None:
    for make, want in ((perfect, at_perfect), (wrong, at_wrong), (uniform, at_uniform)):
        # Of two instances each: one gives no interval.
        rows = [about(make(scope), instance) for scope in (FORGET, RETAIN) for instance in ("first", "second")]
        value = metric(name).keyed(rows, "val")[f"{name}/{key}"]
        assert value.value == pytest.approx(want, rel=1e-6, abs=1e-7), make
        assert value.skipped == ()
        assert value.low <= value.value + 1e-9
        assert value.high >= value.value - 1e-9


def about(row: Answered, instance: str) -> Answered:
    return replace(row, row=replace(row.row, instance=instance))


def test_one_instance_gives_no_interval() -> None:
    """Two rows of one person say as little about others as one. Of two persons: t of one degree 12.706, at the bound
    100 · t² / (2 + t²) = 98.78 of the way."""
    row = wrong(FORGET)
    for rows in ([row], [about(row, "one")] * 2):
        found = metric("unlearn_success").keyed(rows, "val")["unlearn_success/val"]
        assert (found.value, found.low, found.high) == (100.0, None, None)
    two = metric("unlearn_success").keyed([about(row, "one"), about(row, "two")], "val")["unlearn_success/val"]
    assert (two.value, two.high) == (100.0, 100.0)
    assert two.low == pytest.approx(1.22, abs=0.01)


def test_intervals_resample_instances() -> None:
    """Ten persons with ten equal rows each are ten observations: as wide as with a row each."""
    rows = [perfect(FORGET), wrong(FORGET)] * 5
    few = [about(row, str(i)) for i, row in enumerate(rows)]
    for name in ("unlearn_success", "probability", "average_success"):
        retain = [about(perfect(RETAIN), str(i)) for i in range(10)]
        one, ten = (metric(name).keyed([*few * n, *retain], "val") for n in (1, 10))
        for key, value in one.items():
            assert (ten[key].low, ten[key].high) == (pytest.approx(value.low), pytest.approx(value.high)), key


def test_every_metric_has_anchors() -> None:
    without = set(METRICS) - {name for name, *_ in ANCHORS} - ELSEWHERE
    assert not without, f"{without}: add (name, key, perfect, wrong, uniform) to ANCHORS, or the name to ELSEWHERE"
    assert {name for name, *_ in ANCHORS} | ELSEWHERE == set(METRICS)


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


@pytest.mark.parametrize("name", ROW_METRICS)
def test_no_rows_is_none_with_a_reason(name: str) -> None:
    value = metric(name).measure([])
    assert value.value is None
    assert all("no rows" in reason for reason in value.skipped)
    assert value.skipped
    assert metric(name).keyed([], "val") == {}


EMPTY_TEXT_COUNTS = {"degeneration"}


@pytest.mark.parametrize("name", [name for name in ROW_METRICS if name not in EMPTY_TEXT_COUNTS])
def test_rows_without_tokens_or_words_are_none_with_a_reason(name: str) -> None:
    rows = [Answered(Row("What?", "—", scope), Scored((), ()), "", "") for scope in (FORGET, RETAIN)]
    for value in metric(name).keyed(rows, "val").values():
        assert value.value is None
        assert any("1 of 1 rows" in reason for reason in value.skipped)


@pytest.mark.parametrize("name", [name for name in ROW_METRICS if name not in EMPTY_TEXT_COUNTS])
def test_a_row_without_tokens_or_words_is_left_out_and_counted(name: str) -> None:
    rows = [
        f(scope)
        for scope in (FORGET, RETAIN)
        for f in (perfect, lambda s: Answered(Row("?", "—", s), Scored((), ()), ""))
    ]
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
    row: Any = Answered(Row("What?", ANSWER, RETAIN), Scored((0.0,), (True,)), "", "")
    assert metric("rouge_l_generated").measure([row]).value == 0


def test_mean_of_nothing() -> None:
    assert mean([], "why").value is None
