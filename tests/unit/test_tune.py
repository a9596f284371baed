"""The search: same budget for all, a front, and a resumed search that is the one that was interrupted."""

from __future__ import annotations

from typing import Any

import pytest

from scopewise.config import TuneSection, UnlearnSection
from scopewise.data.load import load_benchmark
from scopewise.data.rows import FORGET, RETAIN, TRAIN, VAL, Benchmark, Row
from scopewise.errors import ConfigError
from scopewise.methods.base import make_method
from scopewise.registry import table
from scopewise.runs.tune import Objectives, best, forgotten, holdout, search, space

TUNE = TuneSection(trials=8, learning_rate=(1e-4, 1e-2), knobs={"npo": {"beta": (0.01, 1.0)}})
TARGET = (0.0, 100.0)
TRAINED = ("learning_rate", "num_train_epochs")


def objectives(number: int, section: UnlearnSection) -> Objectives:
    """Unlearning grows with the learning rate, retention shrinks: every trial is on the front, but for a spoilt one."""
    unlearn = 100 * (section.learning_rate / 1e-2) ** 0.5
    return (unlearn, 100 - unlearn) if number != 3 else (0.0, 0.0)


@pytest.mark.parametrize(
    ("method", "searched"),
    [
        ("gradient_ascent", {"learning_rate", "num_train_epochs"}),
        ("memflex", {"learning_rate", "num_train_epochs", "retain_weight"}),
        ("npo", {"learning_rate", "num_train_epochs", "retain_weight", "beta"}),
    ],
)
def test_every_method_has_as_many_trials_within_its_ranges(method: str, searched: set[str]) -> None:
    trials = search(UnlearnSection(method=method), TUNE, objectives, TARGET)
    assert len(trials) == 8
    for trial in trials:
        assert set(trial.parameters) == searched
        assert 1e-4 <= trial.section.learning_rate <= 1e-2
        assert 2 <= trial.section.num_train_epochs <= 20
        assert trial.section.method_args == {k: v for k, v in trial.parameters.items() if k not in TRAINED}
    assert len({trial.section.learning_rate for trial in trials}) == 8
    assert [t.on_front for t in trials] == [number != 3 for number in range(8)]


def test_settings_of_wrappers_are_searched() -> None:
    """The knobs of npo hold for it with a wrapper, too, and those of the wrapper besides; what is set stays."""
    knobs = {"npo": {"beta": (0.01, 1.0)}, "npo+sam": {"sam.rho": (0.001, 0.1)}}
    tune = TuneSection(trials=3, knobs=knobs)
    section = UnlearnSection(method="npo+sam+undo", wrapper_args={"undo": {"alpha": 0.5}, "sam": {}})
    assert all("sam.rho" not in trial.parameters for trial in search(section, tune, objectives, TARGET))
    section = section.model_copy(update={"method": "npo+sam"})
    for trial in search(section, tune, objectives, TARGET):
        assert set(trial.parameters) == {*TRAINED, "retain_weight", "beta", "sam.rho"}
        assert set(trial.section.method_args) == {"retain_weight", "beta"}
        assert trial.section.wrapper_args == {"undo": {"alpha": 0.5}, "sam": {"rho": trial.parameters["sam.rho"]}}
        assert 0.001 <= trial.parameters["sam.rho"] <= 0.1
    wrong = TuneSection(knobs={"npo+sam": {"sam.ro": (0.1, 1.0)}})
    with pytest.raises(ConfigError, match=r"unlearn\.wrapper_args\.sam"):
        search(section, wrong, objectives, TARGET)


def test_interrupted_search_goes_on_as_if_it_had_not_been() -> None:
    section = UnlearnSection(method="ga_kl")
    straight = search(section, TUNE, objectives, TARGET)
    known: dict[int, Objectives] = {}

    def dies(number: int, tried: UnlearnSection) -> Objectives:
        if number == 5 and len(known) == 5:
            raise KeyboardInterrupt
        return known.setdefault(number, objectives(number, tried))

    with pytest.raises(KeyboardInterrupt):
        search(section, TUNE, dies, TARGET)
    known[99] = (0, 0)  # the second time it lives
    assert search(section, TUNE, dies, TARGET) == straight


def planted(number: int, section: UnlearnSection) -> Objectives:
    """A method that forgets only at eight times the upper end of the learning rates, and best with more steps."""
    if section.learning_rate < 8 * WIDE.learning_rate[1]:
        return (1.0, 99.0)
    return (50 + section.num_train_epochs, 90.0)


WIDE = TuneSection(trials=20, learning_rate=(1e-5, 1e-3))


def test_a_search_that_forgot_nothing_looks_higher() -> None:
    """Twice to four times the upper end reaches 16 of it. The trials are as many as those of a search that forgot."""
    said: list[tuple[int, tuple[float, float]]] = []
    section = UnlearnSection(method="ga_descent")
    trials = search(section, WIDE, planted, TARGET, lambda *found: said.append(found))
    assert said == [(6, (1e-5, pytest.approx(4e-3))), (9, (1e-5, pytest.approx(16e-3)))]
    assert len(trials) == len(search(section, WIDE, objectives, TARGET)) == 20
    assert [trial.extensions for trial in trials] == [0] * 6 + [1] * 3 + [2] * 11
    assert all(trial.section.learning_rate <= 1e-3 for trial in trials[:6])
    assert all(1e-3 <= trial.section.learning_rate <= 4e-3 for trial in trials[6:9])
    assert all(4e-3 <= trial.section.learning_rate <= 16e-3 for trial in trials[9:12])
    chosen = best(trials, None)
    assert chosen.section.learning_rate >= 8e-3
    assert chosen.section.num_train_epochs > 10  # the trials that are left over search around what was found
    assert forgotten(trials, TARGET)


def test_a_search_looks_higher_only_so_often_and_only_above_what_the_target_has() -> None:
    said: list[int] = []
    section, poor = UnlearnSection(method="ga_descent"), (20.0, 60.0)
    trials = search(section, WIDE, lambda n, s: (24.9, 60.0), poor, lambda number, _: said.append(number))
    assert said == [6, 9, 12]
    assert max(trial.section.learning_rate for trial in trials) <= 64 * 1e-3
    assert not forgotten(trials, poor)
    assert [t.extensions for t in search(section, WIDE, lambda n, s: (25.0, 60.0), poor)] == [0] * 20
    none = WIDE.model_copy(update={"extensions": 0})
    assert [t.extensions for t in search(section, none, lambda n, s: (0.0, 60.0), poor)] == [0] * 20


def test_an_interrupted_extension_goes_on_as_if_it_had_not_been() -> None:
    section = UnlearnSection(method="ga_descent")
    straight = search(section, WIDE, planted, TARGET)
    for killed in (7, 13):
        known: dict[int, tuple[UnlearnSection, Objectives]] = {}

        def dies(number: int, tried: UnlearnSection, known: Any = known, killed: int = killed) -> Objectives:
            if number in known:
                assert known[number][0] == tried  # the recorded trial is this one
            elif number == killed and len(known) == killed:
                known[99] = (tried, (0, 0))
                raise KeyboardInterrupt
            return known.setdefault(number, (tried, planted(number, tried)))[1]

        with pytest.raises(KeyboardInterrupt):
            search(section, WIDE, dies, TARGET)
        assert search(section, WIDE, dies, TARGET) == straight


PUBLISHED = [("rmu", 1200.0), ("pdu", 100.0), ("sat_imp", 0.1), ("grail", 2.0), ("ga_descent", 1.0)]


@pytest.mark.parametrize(("name", "weight"), PUBLISHED)
def test_a_published_retain_weight_is_inside(name: str, weight: float) -> None:
    low, high = space(name, make_method(name), TuneSection())["retain_weight"]
    assert (low, high) == pytest.approx((weight / 8, weight * 8))
    assert space(name, make_method(name), TuneSection(retain_weight=(0.5, 2)))["retain_weight"] == (0.5, 2)


@pytest.mark.parametrize("name", list(table("methods")))
def test_a_method_is_searched_around_its_own_values(name: str) -> None:
    """Strictly inside, but for a share whose highest value is 1; and both ends are values that it takes."""
    method = make_method(name)
    for knob, (low, high) in method.searched.items():
        assert 0 < low <= getattr(method, knob) < high
        for value in (low, high):
            make_method(name, **{knob: value})
    assert not {*TRAINED, "retain_weight"} & set(method.searched)


def test_a_retain_weight_of_zero_is_not_searched() -> None:
    assert "retain_weight" not in space("ga_kl", make_method("ga_kl", retain_weight=0), TuneSection())


def test_best_by_average_or_by_the_oracle() -> None:
    trials = search(UnlearnSection(method="ga_kl"), TUNE, lambda n, s: [(90.0, 80.0), (60.0, 95.0)][n % 2], TARGET)
    assert best(trials, None).objectives == (90.0, 80.0)
    assert best(trials, (62.0, 99.0)).objectives == (60.0, 95.0)


def test_unknown_knob_is_refused() -> None:
    tune = TuneSection(knobs={"npo": {"bta": (0.1, 1)}})
    with pytest.raises(ConfigError, match=r"Did you mean 'beta'\?"):
        search(UnlearnSection(method="npo"), tune, objectives, TARGET)


def test_held_out_rows_are_train_rows_and_never_val() -> None:
    benchmark = load_benchmark("builtin")
    part = holdout(benchmark, TuneSection(seed=0))
    assert {r.question for r in part.rows} == {r.question for r in benchmark.select(split=TRAIN)}
    assert len(part.select(FORGET, VAL)) == round(0.2 * len(benchmark.select(FORGET, TRAIN)))
    assert part == holdout(benchmark, TuneSection(seed=0)) != holdout(benchmark, TuneSection(seed=1))


def test_the_last_rows_of_each_person_are_held_out() -> None:
    rows = tuple(
        Row(f"Question {number} about {person}?", "An answer.", scope, TRAIN)
        for scope in (FORGET, RETAIN)
        for number in range(5)
        for person in ("Ada Lovelace", "Alan Turing")
    )
    part = holdout(Benchmark("two persons", rows), TuneSection(holdout="last", holdout_fraction=0.4))
    held = [row.question for row in part.select(FORGET, VAL)]
    assert held == [
        f"Question {number} about {person}?" for number in (3, 4) for person in ("Ada Lovelace", "Alan Turing")
    ]
    assert len(part.select(RETAIN, VAL)) == 4


def test_rows_of_single_instances_are_too_few_to_hold_the_last_out() -> None:
    rows = tuple(
        Row(f"Who is {name} Doe?", "A person.", scope, TRAIN) for scope in (FORGET, RETAIN) for name in ("Ann", "Bob")
    )
    with pytest.raises(ConfigError, match="too few to hold some out"):
        holdout(Benchmark("single", rows), TuneSection(holdout="last"))
