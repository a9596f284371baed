"""Progress where stderr is no terminal: a line for each stage, one every few minutes, and none for what is short."""

from __future__ import annotations

import pytest

from scopewise import bars
from scopewise.bars import Lines, bar
from scopewise.eta import Part, Whole


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bars, "_said", set())
    monkeypatch.setattr(bars, "_written", 0.0)


def test_a_stage_has_a_line_when_it_begins_and_one_every_three_minutes(capsys: pytest.CaptureFixture[str]) -> None:
    """100 steps of 60 s: after 180 s, 3 are done, and 97 minutes are left."""
    now = 0.0
    lines = Lines(100, "fine-tune target", "step", clock=lambda: now)
    for step in range(100):
        now += 60.0
        lines.set_postfix(loss=f"{step}.5", refresh=False)
        lines.update()
    written = capsys.readouterr().err.splitlines()
    assert written[0] == "fine-tune target: 100 steps"
    assert written[1] == "fine-tune target: 3 of 100 steps (3%), 1 h 37 min left, loss 2.5"
    assert written[-1] == "fine-tune target: 99 of 100 steps (99%), 1 min left, loss 98.5"
    assert len(written) == 1 + 33


def test_a_resumed_stage_reckons_with_what_it_has_done_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """90 of 100 are done already; 2 more took 180 s, so 8 take 720 s."""
    now = 0.0
    lines = Lines(100, "fine-tune target", "step", initial=90, clock=lambda: now)
    now = 180.0
    lines.update(2)
    assert capsys.readouterr().err.splitlines() == [
        "fine-tune target: 100 steps, 90 of them done",
        "fine-tune target: 92 of 100 steps (92%), 12 min left",
    ]


def test_many_short_bars_of_a_stage_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for what in ("question", "few shot", "sampling") * 10:
        with bar(5, f"memflex/paper/seed0: {what}") as progress:
            progress.update(5)
    with bar(5, "npo/paper/seed0: question") as progress:
        progress.update(5)
    assert capsys.readouterr().err.splitlines() == [
        "memflex/paper/seed0: question: 5 rows",
        "npo/paper/seed0: question: 5 rows",
    ]


def test_nothing_is_said_of_nothing_nor_by_another_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bar(0, "reference of preferred answers").close()
    monkeypatch.setenv("RANK", "1")
    bar(5, "fine-tune target", "step").close()
    assert capsys.readouterr().err == ""


def test_a_stage_of_a_whole_says_what_is_left_in_all(capsys: pytest.CaptureFixture[str]) -> None:
    """Two trainings of 100 steps of 60 s: after 3 steps, 197 minutes are left."""
    now = 0.0
    whole = Whole([Part(name, ("train",), 1.0) for name in "ab"], clock=lambda: now)
    with whole.part("a"):
        lines = Lines(100, "fine-tune target", "step", clock=lambda: now, whole=whole)
        for _ in range(3):
            now += 60.0
            lines.update()
    written = capsys.readouterr().err.splitlines()
    assert written[1] == "fine-tune target: 3 of 100 steps (3%), 1 h 37 min left, 3 h 17 min left in all"
