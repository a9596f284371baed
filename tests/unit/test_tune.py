"""The search: same budget for all, a front, and a resumed search that is the one that was interrupted."""

from __future__ import annotations

import pytest

from scopewise.config import TuneSection, UnlearnSection
from scopewise.data.load import load_benchmark
from scopewise.data.rows import FORGET, TRAIN, VAL
from scopewise.errors import ConfigError
from scopewise.runs.tune import Objectives, best, holdout, search

TUNE = TuneSection(trials=8, learning_rate=(1e-4, 1e-2), knobs={"npo": {"beta": (0.01, 1.0)}})


def objectives(number: int, section: UnlearnSection) -> Objectives:
    """Unlearning grows with the learning rate, retention shrinks: every trial is on the front, but for a spoilt one."""
    unlearn = 100 * (section.learning_rate / 1e-2) ** 0.5
    return (unlearn, 100 - unlearn) if number != 3 else (0.0, 0.0)


@pytest.mark.parametrize(
    ("method", "searched"),
    [
        ("gradient_ascent", {"learning_rate"}),
        ("memflex", {"learning_rate", "retain_weight"}),
        ("npo", {"learning_rate", "retain_weight", "beta"}),
    ],
)
def test_every_method_has_as_many_trials_within_its_ranges(method: str, searched: set[str]) -> None:
    trials = search(UnlearnSection(method=method), TUNE, objectives)
    assert len(trials) == 8
    for trial in trials:
        assert set(trial.parameters) == searched
        assert 1e-4 <= trial.section.learning_rate <= 1e-2
        assert trial.section.method_args == {k: v for k, v in trial.parameters.items() if k != "learning_rate"}
    assert len({trial.section.learning_rate for trial in trials}) == 8
    assert [t.on_front for t in trials] == [number != 3 for number in range(8)]


def test_settings_of_wrappers_are_searched() -> None:
    """The knobs of npo hold for it with a wrapper, too, and those of the wrapper besides; what is set stays."""
    knobs = {"npo": {"beta": (0.01, 1.0)}, "npo+sam": {"sam.rho": (0.001, 0.1)}}
    tune = TuneSection(trials=3, knobs=knobs)
    section = UnlearnSection(method="npo+sam+undo", wrapper_args={"undo": {"alpha": 0.5}, "sam": {}})
    assert all("sam.rho" not in trial.parameters for trial in search(section, tune, objectives))
    section = section.model_copy(update={"method": "npo+sam"})
    for trial in search(section, tune, objectives):
        assert set(trial.parameters) == {"learning_rate", "retain_weight", "beta", "sam.rho"}
        assert set(trial.section.method_args) == {"retain_weight", "beta"}
        assert trial.section.wrapper_args == {"undo": {"alpha": 0.5}, "sam": {"rho": trial.parameters["sam.rho"]}}
        assert 0.001 <= trial.parameters["sam.rho"] <= 0.1
    wrong = TuneSection(knobs={"npo+sam": {"sam.ro": (0.1, 1.0)}})
    with pytest.raises(ConfigError, match=r"unlearn\.wrapper_args\.sam"):
        search(section, wrong, objectives)


def test_interrupted_search_goes_on_as_if_it_had_not_been() -> None:
    section = UnlearnSection(method="ga_kl")
    straight = search(section, TUNE, objectives)
    known: dict[int, Objectives] = {}

    def dies(number: int, tried: UnlearnSection) -> Objectives:
        if number == 5 and len(known) == 5:
            raise KeyboardInterrupt
        return known.setdefault(number, objectives(number, tried))

    with pytest.raises(KeyboardInterrupt):
        search(section, TUNE, dies)
    known[99] = (0, 0)  # the second time it lives
    assert search(section, TUNE, dies) == straight


def test_best_by_average_or_by_the_oracle() -> None:
    trials = search(UnlearnSection(method="ga_kl"), TUNE, lambda n, s: [(90.0, 80.0), (60.0, 95.0)][n % 2])
    assert best(trials, None).objectives == (90.0, 80.0)
    assert best(trials, (62.0, 99.0)).objectives == (60.0, 95.0)


def test_unknown_knob_is_refused() -> None:
    tune = TuneSection(knobs={"npo": {"bta": (0.1, 1)}})
    with pytest.raises(ConfigError, match=r"Did you mean 'beta'\?"):
        search(UnlearnSection(method="npo"), tune, objectives)


def test_held_out_rows_are_train_rows_and_never_val() -> None:
    benchmark = load_benchmark("builtin")
    part = holdout(benchmark, 0.2, 0)
    assert {r.question for r in part.rows} == {r.question for r in benchmark.select(split=TRAIN)}
    assert len(part.select(FORGET, VAL)) == round(0.2 * len(benchmark.select(FORGET, TRAIN)))
    assert part == holdout(benchmark, 0.2, 0) != holdout(benchmark, 0.2, 1)
