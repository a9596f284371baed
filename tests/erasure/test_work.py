"""The work that is expected of a request is what its steps do."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from scopewise.bars import showing
from scopewise.data.facts import Fact
from scopewise.data.rows import FORGET, RETAIN, Row
from scopewise.erasure import work
from scopewise.erasure.plan import unlearning
from scopewise.erasure.request import Lineage, Request
from scopewise.erasure.setup import Options, Setup
from scopewise.erasure.steps import Steps
from scopewise.eta import Part, Whole
from scopewise.exposure import expose

ROWS = tuple(
    Row(f"{asked} {name}{end}?", f"At {number}{i} Mill Lane.", scope, instance=name, attribute=asked[:5])
    for i, name in enumerate(("Ada Quill", "Ben Orrow", "Cleo Varga", "Dov Mistral"))
    for asked, end, number, scope in (("Where does", " live", 1, FORGET), ("Where does", " work", 2, RETAIN))
)


@pytest.fixture
def setup(tiny: tuple[Any, Any], tmp_path: Path) -> Setup:
    for part in tiny:
        part.save_pretrained(tmp_path / "model")
    asked = Request("REQ-1", None, datetime(2026, 11, 1, tzinfo=UTC), None, None, Lineage(), ROWS, {}, tmp_path)
    return Setup(asked, Options(model=str(tmp_path / "model")), tmp_path / "out")


def expected(setup: Setup, kind: str, *there: str, attempt: int = 0) -> list[Part]:
    settings = unlearning("wga", setup.finetuning, len(setup.plain.forget), len(setup.retain))
    return work.parts(setup, lambda name: name in there, kind, settings, attempt)


def test_the_parts_follow_the_plan_and_leave_out_what_is_done(setup: Setup) -> None:
    def names(kind: str, *there: str, attempt: int = 0) -> list[str]:
        return [part.name for part in expected(setup, kind, *there, attempt=attempt)]

    assert names("exact") == ["known", "train", "measure", "verify"]
    assert names("approximate") == ["known", *["train", "measure"] * 3, "verify"]
    assert names("approximate", "known", attempt=5) == ["train", "measure", "verify"]
    assert names("approximate", "known", "unlearn") == ["verify"]
    assert names("nothing") == ["known"]
    assert all(part.cost > 0 for part in expected(setup, "approximate"))


@pytest.mark.parametrize(("minutes", "attempts"), [(0.5, 1), (2.5, 2), (60.0, 3)])
def test_a_budget_says_how_many_attempts_are_expected(setup: Setup, minutes: float, attempts: int) -> None:
    """An attempt takes a minute; the first is always made, and more than three are not expected."""
    settings = unlearning("wga", setup.finetuning, len(setup.plain.forget), len(setup.retain))
    setup.options = replace(setup.options, minutes=minutes)
    parts = work.parts(setup, lambda name: False, "approximate", settings, 0, lambda parts: 60.0)
    assert [part.name for part in parts].count("train") == attempts


def test_the_time_is_known_once_the_exposure_is_measured(setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
    """The exposure opens as many bars as expected, and its speed gives the time of all that follows."""
    parts = expected(setup, "exact")
    whole, seen = Whole(parts), list[float | None]()
    engine = setup.engine(setup.target, "model")
    assert whole.left() is None
    with showing(whole), whole.part("known"):
        expose(engine, setup.facts)
        seen.append(whole.left())
    seen.append(whole.seconds(parts[1:]))
    assert None not in seen
    assert seen[0] == pytest.approx(seen[1], rel=0.1)


def test_what_was_taught_is_kept_apart_from_other_wordings(setup: Setup) -> None:
    rows, more = setup.kept_rows
    assert rows == [row for row in ROWS if row.scope == RETAIN]
    assert {row.answer for row in more} == {row.answer for row in rows}
    assert {row.question for row in more}.isdisjoint(row.question for row in rows)


def test_training_of_a_large_model_costs_more(setup: Setup) -> None:
    small = expected(setup, "exact")
    setup.__dict__["parameters"] = 135_000_000
    more = {part.name for part, before in zip(expected(setup, "exact"), small, strict=True) if part.cost > before.cost}
    assert more == {"train", "verify"}


def test_the_speed_of_an_interrupted_process_counts_when_it_goes_on(tmp_path: Path) -> None:
    """Half of the facts' time is that of half as many, though this process has not measured any."""

    def known(steps: Steps) -> dict[str, Any]:
        with steps.whole.part("known"):
            steps.whole.opened(bar := object(), 4, "row", 0)
            time.sleep(0.05)
            steps.whole.advanced(bar, 4, 4, "row")
        return {}

    def open_(resume: bool) -> Steps:
        return Steps(tmp_path / "out", {}, lambda _: None, resume=resume, overwrite=False)

    later = [Part("verify", ("score",), 5.0)]
    with open_(resume=False) as first:
        assert first.whole.seconds(later) is None
        first.whole.expect([Part("known", ("score",), 10.0)])
        first.step("known", lambda: known(first), lambda _: "")
        seconds = first.whole.seconds(later)
    assert seconds is not None
    assert seconds >= 0.02
    with open_(resume=True) as second:
        assert second.whole.seconds(later) == seconds


def test_text_that_answers_share_counts_once_for_each_question_and_name() -> None:
    fact = Fact(
        Row("Who?", "He is Al", FORGET),
        "Al",
        "Al",
        ("Who?", "Who is he?"),
        ("He is Bo", "He was Ed"),
        ("Bo", "Ed", "Ann"),
    )
    tree = len("He ") + len("is ") + len("Al") + len("Bo") + len("was Ed")
    assert work.scored([fact], few=True) == len("Who?") + len("Who is he?") + 2 * tree
    assert work.scored([fact], few=False) == 4 * work.scored([fact], few=True)
