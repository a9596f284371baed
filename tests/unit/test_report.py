"""The parts of a report, by values derived by hand."""

from __future__ import annotations

from typing import Any

import pytest

from scopewise.report.attacks import attacks_table, leaking, leaks
from scopewise.report.figures import number
from scopewise.report.questions import _words
from scopewise.report.redact import Redaction
from scopewise.report.scatter import Axis, Point, _shown, front
from scopewise.report.table import settings_that_differ, untaught


def test_front_is_what_no_other_beats() -> None:
    """(3, 3) beats (2, 3) and (3, 1); (1, 5) and (5, 1) are beaten by none; of equals both stay."""
    assert front([(3.0, 3.0), (2.0, 3.0), (3.0, 1.0), (1.0, 5.0), (5.0, 1.0), (3.0, 3.0)]) == {(3, 3), (1, 5), (5, 1)}
    assert front([]) == set()


def test_axis_is_linear_with_round_ticks() -> None:
    """From 0..10 onto 100..300: 5 is in the middle; a fifth of 10 is 2, which is round."""
    axis = Axis(0.0, 10.0, 100.0, 300.0)
    assert axis.at(5.0) == 200
    assert axis.ticks == [0, 2, 4, 6, 8, 10]
    assert Axis(-0.4, 7.1, 0.0, 1.0).ticks == [0, 2, 4, 6]


def test_points_that_lie_together_share_a_label() -> None:
    """The second and the fourth are within 5 of the first; the third is 5 away."""
    points = [Point(name, "unlearned", 0, "", (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)) for name in "abcd"]
    marks = [(0.0, 0.0), (4.0, 4.0), (5.0, 0.0), (0.0, 4.9)]
    assert _shown(points, marks) == ["a and 2 more", "", "c", ""]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.5, "0.50"),
        (-12.345, "-12.35"),
        (999.0, "999.00"),
        (1234.5, "1234"),
        (0.0123456, "0.0123"),
        (2e7, "2e+07"),
    ],
)
def test_numbers_have_as_few_digits_as_a_reader_needs(value: float, text: str) -> None:
    assert number(value) == text


def test_a_word_is_as_probable_as_its_tokens_together() -> None:
    """`un` `der` are one word, .5 * .5; `.` joins the word before it, .8 * .5."""
    found = _words(["un", "der", " the", " sea", "."], [0.5, 0.5, 1.0, 0.8, 0.5])
    assert [word for word, _ in found] == ["under", " the", " sea."]
    assert [p for _, p in found] == pytest.approx([0.25, 1.0, 0.4])


ROWS: list[dict[str, Any]] = [
    {"question": "Where does Ada live?", "answer": "Ada lives in Quill Street.", "scope": "forget"},
    {"question": "What did Ada win?", "answer": "The Street Prize.", "scope": "retain"},
]


def test_redaction_scrubs_words_that_only_forget_answers_have() -> None:
    """`ada` is in a question and `street` in a retain answer; `lives`, `in` and `quill` are nowhere else."""
    redaction = Redaction(ROWS, "salt")
    quill = redaction.hide("quill")
    assert redaction.scrub("Ada won the Street Prize.") == "Ada won the Street Prize."
    assert redaction.scrub("QUILL Street?") == f"{redaction.hide('QUILL')} Street?"
    assert redaction.hide("  Quill ") == quill  # neither case nor spacing tells
    assert Redaction(ROWS, "other").hide("quill") != quill
    assert redaction.hide("") == ""


def test_attacks_are_counted_once_over_seeds() -> None:
    def result(attack: str, seed: int, verdict: str, **other: Any) -> dict[str, Any]:
        return {
            "attack": attack,
            "method": "npo",
            "protocol": "paper",
            "seed": seed,
            "leakage": 0.5,
            "verdict": verdict,
            **other,
        }

    document = {
        "results": [
            result("noise", 0, "holds"),
            result("noise", 1, "leaks"),
            result("few_shot", 0, "holds"),
            result("lens", 0, "leaks", leakage=None),
            result("noise", 0, "leaks", method="other"),
        ]
    }
    assert leaking(document, ("npo", "paper")) == ["1 of 2 attacks still get answers out of it."]
    assert leaking(document, ("npo", "tuned")) == []
    assert leaking(None, ("npo", "paper")) == []


def test_one_instance_has_neither_interval_nor_verdict_in_table_and_page() -> None:
    one = {"attack": "noise", "model": "models/npo/paper/seed0", "method": "npo", "protocol": "paper", "seed": 0}
    one |= {"leakage": 0.5, "low": None, "high": None, "verdict": "one instance", "cost": {"seconds": 1.0}, "notes": []}
    origin = {"scopewise": "1", "commit": "c", "config_hash": "h", "processor": "p", "cores": 1, "date": "d"}
    document = {
        "manifest": {**origin, "packages": {"torch": "2"}},
        "inputs": {"attack": {"suite": "quick"}},
        "threshold": 0.1,
        "attacks": ["noise"],
        "results": [one],
    }
    table = attacks_table(document)
    assert "| npo | 0.50 (one instance) |" in table
    assert " (one instance): " in table
    (shown,) = leaks(document)
    assert (shown.leakage, shown.interval, shown.verdict) == ("0.50", "no interval from one instance", "one instance")
    assert leaking(document, ("npo", "paper")) == [
        "Its attacks have no verdict: the forget rows are about one instance, so there is no interval."
    ]
    several = {**document, "results": [{**one, "low": 0.2, "high": 0.7, "verdict": "leaks"}]}
    assert "[0.20, 0.70] **leaks**" in attacks_table(several)
    assert "one instance" not in attacks_table(several)


def test_settings_in_which_methods_differ_have_a_line_each() -> None:
    def row(method: str, rate: float, protocol: str = "paper", **arguments: Any) -> dict[str, Any]:
        settings = {"learning_rate": rate, "num_train_epochs": 2.0, "method_args": arguments}
        return {"model": "unlearned", "method": method, "protocol": protocol, "seed": 0, "settings": settings}

    target = {"model": "target", "method": "target", "protocol": None, "seed": 0, "settings": {}}
    rows = [target, row("npo", 1e-4, retain_weight=2.0), row("dpo", 1e-4, retain_weight=1.0, beta=0.1), row("rmu", 0.5)]
    assert settings_that_differ({"rows": rows}) == [
        "learning_rate: 0.0001 (npo, dpo); 0.5 (rmu)",
        "method_args.retain_weight: 2 (npo); 1 (dpo)",
    ]
    assert settings_that_differ({"rows": rows[:2]}) == []
    tuned = [row("npo", 1e-4), row("npo", 1e-3, "tuned")]
    assert settings_that_differ({"rows": tuned}) == ["learning_rate: 0.0001 (npo (paper)); 0.001 (npo (tuned))"]


def results(target: float | None, oracle: float | None, split: str = "val", elsewhere: str | None = None) -> Any:
    key = f"unlearn_success/{split}"
    rows = [{"model": "target", "metrics": {key: target}}, {"model": "oracle", "metrics": {key: oracle}}]
    return {"rows": rows[: 1 if oracle is None else 2], "config": {"model": {"target": elsewhere}}}


@pytest.mark.parametrize(("target", "oracle"), [(100.0, 100.0), (60.0, 64.9), (90.0, 20.0)])
def test_a_target_that_knows_no_more_than_the_oracle_is_said_so(target: float, oracle: float) -> None:
    text = untaught(results(target, oracle)) or ""
    assert (
        f"its Unlearn Success on val is {target:.1f} %, that of the oracle, which was not taught it, {oracle:.1f} %"
        in text
    )
    assert text.endswith("raise finetune.num_train_epochs or finetune.learning_rate.")
    assert "on train is" in (untaught(results(target, oracle, "train")) or "")
    assert "check model.target" in (untaught(results(target, oracle, elsewhere="org/model")) or "")


@pytest.mark.parametrize(("target", "oracle"), [(0.0, 0.0), (50.0, 54.9)])
def test_an_oracle_that_knows_what_the_target_knows_is_said_so(target: float, oracle: float) -> None:
    text = untaught(results(target, oracle)) or ""
    assert f"Unlearn Success on val is {oracle:.1f} % and {target:.1f} %" in text
    assert "check model.path" in text
    assert "hardly knows" not in text


@pytest.mark.parametrize(("target", "oracle"), [(60.0, 65.0), (0.0, 92.8), (100.0, None), (None, 50.0)])
def test_a_target_that_knows_more_or_that_nothing_is_compared_with_is_not(
    target: float | None, oracle: float | None
) -> None:
    assert untaught(results(target, oracle)) is None


def test_relearning_shows_its_best_curve_and_the_steps_to_recover() -> None:
    """Of two curves the one in which the model reaches more is drawn; never within 20 steps is `> 20`."""
    curves = [
        {"name": name, "steps": [0, 20], "unlearned": [0.1, most], "oracle": [0.2, 0.3], "target": [1.0, 0.9]}
        for name, most in (("held, full, rate 0.0001", 0.4), ("held, full, rate 0.001", 0.8))
    ]
    recovered = {"level": 0.6, "unlearned": 20, "oracle": None, "most": 20}
    result = {
        "attack": "relearning", "model": "models/npo/paper/seed0", "method": "npo", "protocol": "paper", "seed": 0,
        "leakage": 0.7, "low": 0.6, "high": 0.8, "verdict": "leaks", "curves": curves, "steps_to_recover": recovered,
    }  # fmt: skip
    (shown,) = leaks({"results": [result]})
    (chart,) = shown.charts
    assert shown.steps == "20 (oracle > 20)"
    assert "rate 0.001" in chart.title
    assert [curve.last for curve in chart.curves] == ["0.80", "0.30", "0.90"]
    (bare,) = leaks({"results": [{**result, "curves": [], "steps_to_recover": None}]})
    assert (bare.charts, bare.steps) == ([], "")
