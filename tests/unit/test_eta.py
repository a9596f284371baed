"""The time that is left of a whole: with even costs, after a stop, and where parts are read from disk."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scopewise.eta import ActiveClock, Part, Whole


class Time:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


def training(name: str, cost: float = 300.0) -> Part:
    return Part(name, (name, "train"), cost)


def train(whole: Whole, time: Time, steps: int, seconds: float, first: int = 0, total: int = 0) -> None:
    """Take steps of a training, each of the same length."""
    bar = object()
    whole.opened(bar, total or steps, "step", first)
    for _ in range(steps):
        time.now += seconds
        whole.advanced(bar, 1, total or steps, "step")
    whole.closed(bar)


def score(whole: Whole, time: Time, rows: int, seconds: float) -> None:
    bar = object()
    whole.opened(bar, rows, "row", 0)
    for _ in range(rows):
        time.now += seconds
        whole.advanced(bar, 1, rows, "row")
    whole.closed(bar)


def test_nothing_is_said_before_anything_is_known(time: Time) -> None:
    whole = Whole([training("a"), training("b")], time)
    assert whole.left() is None
    with whole.part("a"):
        assert whole.left() is None


def test_even_costs_are_exact_from_the_first_step(time: Time) -> None:
    """Four trainings of 100 steps of 2 s, the last of twice the cost: 1000 s in all."""
    whole = Whole([*(training(name) for name in "abc"), training("d", 600.0)], time)
    with whole.part("a"):
        train(whole, time, 50, 2.0, total=100)
        assert whole.left() == pytest.approx(900)
        time.now += 100
    assert whole.left() == pytest.approx(800)
    with whole.part("b"):
        train(whole, time, 25, 2.0, total=100)
        assert whole.left() == pytest.approx(750)


def test_scoring_and_training_have_speeds_of_their_own(time: Time) -> None:
    """A row that is scored takes 0.1 s, one that is trained on 1 s; the scoring has twice the rows that were expected."""
    scoring = [Part(f"score {name}", ("score",), 50.0) for name in "ab"]
    parts = [training("a", 100.0), scoring[0], training("b", 100.0), scoring[1]]
    whole = Whole(parts, time)
    with whole.part("a"):
        train(whole, time, 10, 10.0)
    with whole.part("score a"):
        score(whole, time, 100, 0.1)
    assert whole.left() == pytest.approx(100 + 10)
    with whole.part("b"):
        train(whole, time, 10, 10.0)
    with whole.part("score b"):
        score(whole, time, 20, 0.1)
        assert whole.left() == pytest.approx(8)


def test_what_is_read_from_disk_says_nothing_of_the_speed(time: Time) -> None:
    """a was there already; of b, 90 of 100 steps were. The other 10 take 20 s, so c takes 200 s."""
    whole = Whole([training(name) for name in "abc"], time)
    with whole.part("a"):
        time.now += 0.5
    assert whole.left() is None
    with whole.part("b"):
        train(whole, time, 5, 2.0, first=90, total=100)
        assert whole.left() == pytest.approx(10 + 200)
        time.now += 10
    assert whole.left() == pytest.approx(200)


def test_a_part_that_failed_does_not_count(time: Time) -> None:
    whole = Whole([training("a"), training("b")], time)

    def fail() -> None:
        with whole.part("a"):
            train(whole, time, 1, 500.0, total=100)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert whole.left() is None


def test_a_stop_does_not_count() -> None:
    """The process is stopped for an hour between two ticks; 5 s of it count at most."""
    time = Time()
    clock = ActiveClock(time)
    whole = Whole([training("a"), training("b")], clock)
    with whole.part("a"):
        bar = object()
        whole.opened(bar, 100, "step", 0)
        for step in range(50):
            if step == 25:
                time.now += 3600
            for _ in range(2):
                time.now += 1
                clock()
            whole.advanced(bar, 1, 100, "step")
        assert whole.left() == pytest.approx(300, rel=0.1)


def test_what_is_expected_can_change(time: Time) -> None:
    whole = Whole([training("a")], time)
    with whole.part("a"):
        train(whole, time, 10, 3.0)
    whole.expect([Part("later", ("other",), 100.0)])
    assert whole.left() == pytest.approx(10)  # at the speed of all, since nothing of its kind was done
    assert whole.seconds([training("x", 30.0)]) == pytest.approx(3)
    with whole.part("never expected"):
        assert whole.left() == pytest.approx(10)


def test_the_first_scoring_is_followed_by_its_bars(time: Time) -> None:
    """Two bars of 10 units each, for 400 rows: a unit is many rows, and nobody knows how many before it is done."""
    whole = Whole([Part("a", ("score",), 400.0, bars=2), Part("b", ("score",), 800.0)], time)
    with whole.part("a"):
        score(whole, time, 10, 1.0)
        assert whole.left() == pytest.approx(10 + 40)
        score(whole, time, 10, 1.0)
    with whole.part("b"):
        score(whole, time, 10, 1.0)
        assert whole.left() == pytest.approx(30)


def test_the_steps_of_an_attack_count_as_rows_of_the_scoring_that_it_is_part_of(time: Time) -> None:
    """Ten of the twenty rows that were expected are steps."""
    whole = Whole([Part("a", ("score",), 10.0), Part("b", ("score",), 20.0)], time)
    with whole.part("a"):
        score(whole, time, 10, 1.0)
    with whole.part("b"):
        train(whole, time, 10, 1.0)
        assert whole.left() == pytest.approx(10)


def test_steps_of_a_known_cost_count_by_it_and_not_as_rows(time: Time) -> None:
    """100 rows of cost 1 take 100 s. An attack of cost 1000: 400 rows, and 60 steps of cost 10, which take 10 s each."""
    attack = Part("attack", ("score",), 1000.0, step=10.0)
    whole = Whole([Part("score", ("score",), 100.0), attack, replace(attack, name="again")], time)
    with whole.part("score"):
        score(whole, time, 100, 1.0)
    with whole.part("attack"):
        score(whole, time, 200, 1.0)
        assert whole.left() == pytest.approx(1800)
        for done in (30, 60):
            train(whole, time, 30, 10.0)
            assert whole.left() == pytest.approx(1800 - 10 * done)
        score(whole, time, 200, 1.0)
    assert whole.left() == pytest.approx(1000)
    with whole.part("again"):  # the first one's rows are not taken for all of its cost
        score(whole, time, 200, 1.0)
        assert whole.left() == pytest.approx(800)
