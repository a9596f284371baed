"""Measures of texts, of the membership of rows, and of other measures: values derived by hand, and honest gaps."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from scopewise.config import DataSection, EvaluateSection
from scopewise.data.rows import FORGET, HOLDOUT, RETAIN, Benchmark, Row
from scopewise.errors import ResultError
from scopewise.evaluation import evaluate
from scopewise.metrics.base import Answered, ReferenceValues, Value, harmonic_mean
from scopewise.metrics.knowledge import entities
from scopewise.metrics.membership import MembershipMetric, auc
from scopewise.models.engine import Engine
from scopewise.models.score import Scored
from scopewise.registry import lookup


def metric(name: str) -> Any:
    return lookup("metrics", name)()


def text(
    generated: str, answer: str = "An answer.", question: str = "What?", scope: str = FORGET, **others: Any
) -> Answered:
    return Answered(Row(question, answer, scope), Scored((-1.0,), (True,)), "", generated, **others)


# Texts


@pytest.mark.parametrize(
    ("generated", "repetition", "broken"),
    [
        ("she lives in a blue house by the sea", 0.0, 0),
        ("the the the the the the", 0.75, 1),  # four 3-grams, one of them new
        ("a b c a b c", 0.25, 0),  # abc bca cab abc
        ("one two", None, 0),
        ("", None, 1),
        ("?!?! ---", None, 1),
        ("x ## == ++ ## !!", 0.0, 1),  # mostly signs
    ],
)
def test_repetition_and_degeneration(generated: str, repetition: float | None, broken: int) -> None:
    assert metric("degeneration").measure([text(generated)]).value == broken
    assert metric("repetition").measure([text(generated)]).value == repetition


def test_entities_by_their_spelling() -> None:
    assert entities("The poet Ada Quill lives at 12 Heron Street, Delft. She writes; mail ada@quill.example. In 1974.") == {
        "ada quill", "12", "heron street", "delft", "ada@quill.example", "1974",
    }  # fmt: skip


def test_coverage_leaves_out_what_the_question_names() -> None:
    """Of Ada Quill (in the question), Delft and 12: one of two is given."""
    row = text("in delft, i think", "Ada Quill lives at 12 Canal Side in Delft.", "Where does Ada Quill live?")
    assert metric("entity_coverage").measure([row]).value == pytest.approx(1 / 3)  # Canal Side, 12, Delft
    assert metric("entity_coverage").measure([text("x", "a small dog")]).skipped


@pytest.mark.parametrize(
    ("coverage_text", "contradicts", "kfr", "krr"),
    [
        ("Delft", None, 0, 1),
        ("Delft", True, 1, 0),
        ("Delft", False, 0, 1),
        ("nowhere", False, 1, 0),
        ("nowhere", True, 1, 0),
    ],
)
def test_rates(coverage_text: str, contradicts: bool | None, kfr: int, krr: int) -> None:
    row = text(coverage_text, "She lives in Delft.", contradicts=contradicts, contradicted=contradicts)
    for name, want in (("kfr", kfr), ("krr", krr)):
        value = metric(name).measure([row])
        assert value.value == want
        assert bool(value.note) == (contradicts is None)


def test_linguistic_score_of_one_word_over_and_over() -> None:
    """ "at" 128 times: BI = 128^(1^-.165) = 128, HS = 100 ln 128 / (1 - 0 + .1) = 441.09 (the paper's table 9); PPL e."""
    row = text("at " * 128, generated_nll=1.0)
    want = harmonic_mean([1 / 129, 441.0934 / 442.0934, 1 / (1 + math.e)])
    assert metric("linguistic_score").measure([row]).value == pytest.approx(want, rel=1e-5)
    without = metric("linguistic_score").measure([text("at " * 128)])
    assert without.value == pytest.approx(harmonic_mean([1 / 129, 441.0934 / 442.0934]), rel=1e-5)
    assert "without perplexity" in without.note
    assert metric("linguistic_score").measure([text("")]).value == 0


def test_fluency_without_a_judge_is_none() -> None:
    assert metric("fluency").measure([text("x")]).skipped == ("1 of 1 rows: no evaluate.fluency_model",)


# Membership


def member(scope: str, log_probs: list[float], answer: str = "abc", **others: Any) -> Answered:
    n = len(log_probs)
    scored = Scored(tuple(log_probs), (True,) * n, (0,) * n, (-1.0,) * n, (4.0,) * n)
    return Answered(Row("q", answer, scope), scored, **others)


def test_auc_counts_ties_half() -> None:
    """Of 2 x 2 pairs: 3 > 1, 3 > 3 (tie), 2 > 1, not 2 > 3."""
    assert auc(np.array([1.0, 3.0]), np.array([3.0, 2.0])) == (1 + 0.5 + 1 + 0) / 4


@pytest.mark.parametrize("name", ["mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus"])
def test_membership_is_obvious_at_chance_or_reversed(name: str) -> None:
    known, unknown = [-0.1, -0.2, -0.1], [-3.0, -4.0, -5.0]
    for forget, holdout, want in ((known, unknown, 1.0), (known, known, 0.5), (unknown, known, 0.0)):
        rows = [member(FORGET, forget)] * 3 + [member(HOLDOUT, holdout)] * 3
        value = metric(name).keyed(rows, "val")[f"{name}/val"]
        assert (value.value, value.low, value.high) == (want, want, want)


def test_membership_scores_by_hand() -> None:
    """Five tokens: the lowest two (40 %) of -1 … -5 are -5, -4; standardised (x + 1) / 2: -2, -1.5."""

    row = member(FORGET, [-1.0, -2.0, -3.0, -4.0, -5.0])
    assert metric("mia_min_k").score(row) == 4.5
    assert metric("mia_min_k_plus_plus").score(row) == 1.75
    assert metric("mia_zlib").score(row) == pytest.approx(3 / 11)  # zlib makes 11 bytes of b"abc"


def test_the_end_of_sequence_counts_in_the_loss_alone() -> None:

    scored = Scored((-1.0, -9.0), (True, False), (0, 0), (0.0, 0.0), (1.0, 1.0), ends=True)
    row = Answered(Row("q", "a", FORGET), scored)
    assert metric("mia_loss").score(row) == 5.0
    assert metric("mia_min_k").score(row) == 1.0
    assert row.hits == (True,)
    assert metric("exact_memorization").measure([row]).value == 1.0
    assert metric("probability").measure([row]).value == pytest.approx(math.exp(-5))


def test_membership_needs_holdout_rows() -> None:
    assert metric("mia_loss").keyed([member(FORGET, [-1.0])], "val") == {}


def test_reference_and_gradient_norm() -> None:
    """Loss minus the reference's: forget 1 - 3, holdout 4 - 3; norms 1 and 2."""
    rows = [
        member(FORGET, [-1.0], reference_log_probs=(-3.0,), gradient_norm=1.0),
        member(HOLDOUT, [-4.0], reference_log_probs=(-3.0,), gradient_norm=2.0),
    ]
    assert metric("mia_reference").measure(rows).value == 1.0
    assert metric("mia_gradnorm").measure(rows).value == 1.0
    bare = [member(FORGET, [-1.0]), member(HOLDOUT, [-4.0])]
    for name in ("mia_reference", "mia_gradnorm"):
        assert metric(name).measure(bare).value is None


@pytest.mark.parametrize("has_end", [True, False])
def test_the_end_of_sequence_has_no_part_in_gradients_and_hits(
    has_end: bool, tiny: Any, benchmark_rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With and without `eos`, gradient norms and memorization are of the same tokens, also where a tokenizer has no end."""
    model, tokenizer = tiny
    if not has_end:
        tokenizer.eos_token = None
    rows = [
        replace(row, scope=scope, split="val") for row, scope in zip(benchmark_rows, (FORGET, HOLDOUT), strict=False)
    ]
    scores: list[list[float]] = []
    monkeypatch.setattr(
        MembershipMetric,
        "measure",
        lambda self, rows: scores.append([self.score(row) for row in rows]) or Value(None),
    )
    found = []
    for eos in (True, False):
        settings = EvaluateSection(
            metrics=("mia_gradnorm", "exact_memorization"), splits=(rows[0].split,), direct_splits=(), eos=eos
        )
        found.append(
            evaluate(Engine(model, tokenizer, DataSection(max_length=400)), Benchmark("b", tuple(rows)), settings)
        )
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)
    assert len(set(scores[0])) == 2
    key = f"exact_memorization/forget_{rows[0].split}"
    assert found[0].metrics[key] == found[1].metrics[key]


def test_truth_ratio_of_a_collapsed_model() -> None:
    """P of right and wrong e^-40: e^-40 / (2 e^-40 + 1e-10) = 4.2e-8, not the ½ of a model that is merely indifferent."""
    row = member(FORGET, [-40.0], perturbed=(Scored((-40.0,), (False,)),))
    assert metric("truth_ratio").measure([row]).value == pytest.approx(math.exp(-40) / 1e-10, rel=1e-6)
    indifferent = member(FORGET, [-3.0], perturbed=(Scored((-3.0,), (False,)),))
    assert metric("truth_ratio").measure([indifferent]).value == pytest.approx(0.5)


# Aggregates


def combined(
    name: str, values: dict[str, float], oracle: dict | None = None, target: dict | None = None
) -> Value | None:
    def as_values(given: dict[str, Any]) -> dict[str, Value]:
        return {k: v if isinstance(v, Value) else Value(v) for k, v in given.items()}

    reference = None if oracle is None else ReferenceValues(as_values(oracle), as_values(target or {}))
    return metric(name).combine(as_values(values), reference, "val")


def test_privleak_and_relative_difference() -> None:
    """AUC .9 against .6: 100 · (.1 - .4) / .4 = -75; 100 · .3 / .6 = 50. Without a reference .5 stands for it."""
    key = "mia_min_k/val"
    assert combined("privleak", {key: 0.9}, {key: 0.6}).value == pytest.approx(-75)
    assert combined("rel_diff", {key: 0.9}, {key: 0.6}).value == pytest.approx(50)
    alone = combined("privleak", {key: 0.9})
    assert alone.value == pytest.approx(-80)
    assert "no reference" in alone.note
    interval = combined("privleak", {key: Value(0.9, low=0.8, high=1.0)}, {key: 0.6})
    assert (interval.low, interval.high) == (pytest.approx(-100), pytest.approx(-50))
    assert combined("privleak", {}) is None


def test_forget_quality() -> None:
    """The same ratios: p = 1. Two samples of 400 that do not overlap: 2 / C(800, 400) = 1.06e-239, OpenUnlearning's floor."""
    key = "truth_ratio_raw/val"
    ratios = tuple(float(x) for x in range(400))
    own = Value(0.0, ratios)
    assert combined("forget_quality", {key: own}, {key: own}).value == pytest.approx(1.0)
    apart = Value(0.0, tuple(x + 1000 for x in ratios))
    assert combined("forget_quality", {key: own}, {key: apart}).value == pytest.approx(
        2 / math.comb(800, 400), rel=1e-6
    )
    missing = combined("forget_quality", {key: own})
    assert missing.value is None
    assert "no reference" in missing.skipped[0]
    assert "truth_ratio_forget" in missing.note


def nine(**changes: float) -> dict[str, float]:
    values = {
        f"{name}/{scope}_val": 0.5
        for scope in ("retain", "real_authors", "world_facts")
        for name in (
            "probability" if scope == "retain" else "probability_normalised",
            "rouge_l_recall",
            "truth_ratio_retain",
        )
    }
    return values | {key.replace("__", "/"): value for key, value in changes.items()}


def test_model_utility() -> None:
    """All .5; one at .25: 9 / (8 · 2 + 4) = .45, and it is named; one at zero: zero, and it is named."""
    assert combined("model_utility", nine()).value == pytest.approx(0.5)
    one_low = combined("model_utility", nine(rouge_l_recall__retain_val=0.25))
    assert one_low.value == pytest.approx(0.45)
    assert "rouge_l_recall/retain_val 0.25" in one_low.note
    assert combined("model_utility", nine(truth_ratio_retain__world_facts_val=0.0)).value == 0
    values = nine()
    del values["rouge_l_recall/world_facts_val"]
    assert combined("model_utility", values).skipped == ("not measured: rouge_l_recall/world_facts_val",)
    assert combined("model_utility", {"probability/retain_val": 1.0}) is None


MEMORY = ("extraction_strength", "exact_memorization", "probability_paraphrase", "truth_ratio")


def test_memorization_is_scaled_with_the_target() -> None:
    """m = .2 of .8 each: 1 - .25 = .75. The target itself: 0. Unscaled: .8."""
    own = {f"{name}/forget_val": 0.2 for name in MEMORY}
    full = {f"{name}/forget_val": 0.8 for name in MEMORY}
    assert combined("memorization", own, {}, full).value == pytest.approx(0.75)
    assert combined("memorization", full, {}, full).value == 0
    unscaled = combined("memorization", own)
    assert unscaled.value == pytest.approx(0.8)
    assert "no target" in unscaled.note
    assert combined("memorization", {}) is None


def test_privacy_is_two_sided() -> None:
    """AUC a against r = .4: a = .4 is 1; a = .7 is min(.7/.4, .3/.6) = .5; a = .2 is min(.5, ..) = .5."""
    names = ("mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus")
    reference = {f"{n}/val": 0.4 for n in names}
    for a, want in ((0.4, 1.0), (0.7, 0.5), (0.2, 0.5), (1.0, 0.0)):
        assert combined("privacy", {f"{n}/val": a for n in names}, reference).value == pytest.approx(want)
    assert combined("privacy", reference).value is None


def test_utility_and_overall() -> None:
    """Utility .4 of .5 and fluency .9 of .9: harmonic mean of .8 and 1 = 8/9. Overall of .5, .5, 1: 3 / 5 = .6."""
    own = {"model_utility/val": 0.4, "fluency/forget_val": 0.9}
    full = {"model_utility/val": 0.5, "fluency/forget_val": 0.9}
    assert combined("utility", own, {}, full).value == pytest.approx(8 / 9)
    assert "no fluency" in combined("utility", {"model_utility/val": 0.4}, {}, full).note
    overall = combined("overall", {"memorization/val": 0.5, "privacy/val": 0.5, "utility/val": 1.0})
    assert overall.value == pytest.approx(0.6)
    assert "lowest" in overall.note
    assert combined("overall", {"memorization/val": 0.5}).skipped == ("not measured: privacy", "not measured: utility")


def test_an_openunlearning_log_is_read() -> None:
    from scopewise.open_unlearning import values_of_log

    log = {
        "forget_Q_A_Prob": {"agg_value": 0.5, "value_by_index": {"0": {"prob": 0.4}, "1": {"prob": 0.6}}},
        "forget_truth_ratio": {"agg_value": 0.6, "value_by_index": {"0": {"score": 2.0}, "1": {"score": float("nan")}}},
        "ra_Q_A_Prob_normalised": {"agg_value": 0.7, "value_by_index": {"0": {"prob": 0.7}}},
        "model_utility": {"agg_value": None},
        "mia_min_k": {"agg_value": 0.9, "auc": 0.9, "forget": {}, "holdout": {}},
        "something_new": {"agg_value": 1},
    }
    values = values_of_log(log)
    assert values["probability/forget_val"].per_row == (0.4, 0.6)
    assert values["truth_ratio_raw/val"].per_row == (2.0, None)
    assert values["truth_ratio_forget/val"].value == 0.6
    assert values["probability_normalised/real_authors_val"].value == 0.7
    assert values["model_utility/val"].value is None
    assert values["mia_min_k/val"].value == 0.9
    assert values["something_new/val"].value == 1


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ("0.5", "str"),
        ({"agg_value": "0.5"}, "not a number"),
        ({"agg_value": True}, "not a number"),
        ({"agg_value": 0.5, "value_by_index": [{"prob": 0.5}]}, "mapping of mappings"),
        ({"agg_value": 0.5, "value_by_index": {"0": {"prob": "0.5"}}}, "not a number"),
    ],
)
def test_a_broken_openunlearning_log_is_refused(entry: Any, named: str) -> None:
    from scopewise.open_unlearning import values_of_log

    with pytest.raises(ResultError, match=f"forget_Q_A_Prob.*{named}"):
        values_of_log({"forget_Q_A_Prob": entry, "model_utility": {"agg_value": None}})


@pytest.mark.parametrize(
    "changed",
    [{"value": "0.5"}, {"value": math.nan}, {"per_row": "0.5"}, {"per_row": ["a"]}, {"skipped": "none"}, None],
)
def test_a_changed_evaluation_is_refused(changed: Any) -> None:
    from scopewise.evaluation import read_values

    value = {"value": 0.5, "per_row": [0.5, None], "skipped": [], "low": None}
    assert read_values({"a/val": value})["a/val"] == Value(0.5, (0.5, None))
    with pytest.raises(ResultError, match="a/val"):
        read_values({"a/val": None if changed is None else {**value, **changed}})


def test_oracle_gap_stands_beside_each_value(tiny: Any, benchmark_rows: Any) -> None:
    from scopewise.api import evaluate

    model, tokenizer = tiny
    rows = {s: [r for r in benchmark_rows if r.scope == s][:3] for s in (FORGET, RETAIN)}
    settings = {"metrics": ("probability", "exact_memorization"), "direct_splits": (), "max_length": 400}
    first = evaluate(model, tokenizer, forget=rows[FORGET], retain=rows[RETAIN], **settings)
    document = first.document(ReferenceValues({"probability/forget_train": Value(0.25)}))
    gap = document["probability/forget_train"]["oracle_gap"]
    assert gap == pytest.approx(first.metrics["probability/forget_train"] - 0.25)
    assert document["exact_memorization/retain_train"]["oracle_gap"] is None
