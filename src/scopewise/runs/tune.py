"""Hyper-parameter search, the same for every method: Optuna with two objectives, on held-out train rows."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import optuna

from scopewise.config import TuneSection, UnlearnSection
from scopewise.data.instances import instance_of
from scopewise.data.rows import SCOPES, TRAIN, VAL, Benchmark, Row
from scopewise.errors import ConfigError
from scopewise.methods.base import Method, make_method
from scopewise.methods.wrappers.base import make_wrappers
from scopewise.registry import split_method

Objectives = tuple[float, float]
"""Unlearn Success and Retention Success on the held-out part of train, in percent."""


TRAINING = ("learning_rate", "num_train_epochs")
"""What is searched of the training; all else are hyper-parameters of the method."""

EXTENSION = 4.0
"""Factor of the upper end of the learning rates where nothing was forgotten."""

FORGOTTEN_POINTS = 5.0
"""Least points of Unlearn Success above the target's at which something was forgotten."""

AROUND = 8.0
"""A retain weight is searched from its own value divided by this to its own value times this."""


@dataclass(frozen=True)
class Trial:
    """A trial of the search.

    Attributes:
        section: The settings.
        parameters: Those of the settings that are searched.
        objectives: The resulting objectives.
        extensions: How often the range of learning rates had been extended upward before it.
        on_front: Whether the trial is on the Pareto front.
    """

    section: UnlearnSection
    parameters: Mapping[str, float]
    objectives: Objectives
    extensions: int = 0
    on_front: bool = False

    @property
    def average(self) -> float:
        """Average Success on the held-out part of train, in percent."""
        return sum(self.objectives) / 2

    def document(self) -> dict[str, Any]:
        """Return its entry in `results.json`."""
        unlearn, retention = self.objectives
        return {
            **self.parameters,
            "unlearn_success": unlearn,
            "retention_success": retention,
            "extensions": self.extensions,
            "on_front": self.on_front,
        }


def search(
    section: UnlearnSection,
    tune: TuneSection,
    measure: Callable[[int, UnlearnSection], Objectives],
    target: Objectives,
    extended: Callable[[int, tuple[float, float]], None] = lambda number, learning_rates: None,
) -> list[Trial]:
    """Search the settings of one method.

    The first third of the trials covers the ranges evenly, with the same points for methods with the same number of
    ranges; each later trial is proposed from the earlier ones with its own seed. As long as nothing was forgotten, the next
    sixth of the trials covers an extension of the learning rates upward instead; the number of trials stays the same. Each
    choice depends only on earlier trials, so an interrupted search gives the same trials when it continues, if `measure`
    returns the recorded objectives of complete trials.

    Args:
        section: Settings that are not searched.
        tune: Trials, ranges, seed.
        measure: Returns the objectives of a trial, by its number and settings.
        target: The objectives before unlearning.
        extended: Called at each extension, with the number of the next trial and the new range of learning rates.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    ranges = space(section.method, make_method(section.method, **section.method_args), tune)
    first = max(4, tune.trials // 3)
    planned = [_even_point(number, ranges) for number in range(first)]
    trials: list[Trial] = []
    extensions = 0
    while len(trials) < tune.trials:
        if not planned and extensions < tune.extensions and not forgotten(trials, target):
            low, high = ranges["learning_rate"]
            ranges["learning_rate"] = (low, EXTENSION * high)
            extensions += 1
            extended(len(trials), ranges["learning_rate"])
            above = ranges | {"learning_rate": (high, EXTENSION * high)}
            planned = [_even_point(number, above) for number in range(max(2, tune.trials // 6))]
        point = planned.pop(0) if planned else _proposed(trials, ranges, tune.seed * 1000 + len(trials), first)
        tried = with_parameters(section, point)
        trials.append(Trial(tried, point, measure(len(trials), tried), extensions))
    front = {trial.number for trial in _study(trials, ranges).best_trials}
    return [replace(trial, on_front=number in front) for number, trial in enumerate(trials)]


def forgotten(trials: Sequence[Trial], target: Objectives) -> bool:
    """Return whether any trial forgot something."""
    return any(trial.objectives[0] - target[0] >= FORGOTTEN_POINTS for trial in trials)


def _study(trials: Sequence[Trial], ranges: Mapping[str, tuple[float, float]]) -> optuna.Study:
    """Return a study with the trials so far, all in the present ranges."""
    study = optuna.create_study(directions=["maximize", "maximize"])
    for trial in trials:
        study.add_trial(
            optuna.trial.create_trial(
                params=dict(trial.parameters), distributions=_distributions(ranges), values=list(trial.objectives)
            )
        )
    return study


def _distributions(ranges: Mapping[str, tuple[float, float]]) -> dict[str, optuna.distributions.BaseDistribution]:
    return {name: optuna.distributions.FloatDistribution(low, high, log=True) for name, (low, high) in ranges.items()}


def _proposed(
    trials: Sequence[Trial], ranges: Mapping[str, tuple[float, float]], seed: int, first: int
) -> dict[str, float]:
    """Return the point that the tree-structured Parzen estimator proposes after some trials."""
    study = _study(trials, ranges)
    study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=first, multivariate=True)
    return study.ask(_distributions(ranges)).params


def _even_point(number: int, ranges: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Return a point of the additive recurrence with the generalised golden ratio, which fills any number of dimensions."""
    dimensions = len(ranges)
    golden = 2.0
    for _ in range(40):  # converges to the root of x^(d+1) = x + 1
        golden = (1 + golden) ** (1 / (dimensions + 1))
    shares = [(0.5 + (number + 1) * golden ** -(i + 1)) % 1 for i in range(dimensions)]
    return {
        name: min(high, max(low, low * (high / low) ** share))  # a rounding must not leave the range
        for (name, (low, high)), share in zip(ranges.items(), shares, strict=True)
    }


def space(name: str, method: Method, tune: TuneSection) -> dict[str, tuple[float, float]]:
    """Return the ranges to search for a method. A factor of its only term is left out, since Adam is invariant to it."""
    ranges = {"learning_rate": tune.learning_rate, "num_train_epochs": tune.num_train_epochs}
    own = method.retain_weight
    if method.retain_terms and (tune.retain_weight is not None or own > 0):
        ranges["retain_weight"] = tune.retain_weight or (own / AROUND, own * AROUND)
    ranges |= method.searched
    for knob, low_high in (tune.knobs.get(split_method(name)[0], {}) | tune.knobs.get(name, {})).items():
        wrapper, dot, setting = knob.partition(".")
        if dot:  # ConfigError for an unknown one
            make_wrappers(name, {wrapper: {setting: low_high[0]}})
        else:
            make_method(name, **{knob: low_high[0]})
        ranges[knob] = low_high
    return ranges


def with_parameters(section: UnlearnSection, parameters: Mapping[str, float]) -> UnlearnSection:
    """Return the settings of a trial."""
    training, method_args = {}, dict(section.method_args)
    wrapper_args = {name: dict(own) for name, own in section.wrapper_args.items()}
    for key, value in parameters.items():
        wrapper, dot, setting = key.partition(".")
        if dot:
            wrapper_args.setdefault(wrapper, {})[setting] = value
        elif key in TRAINING:
            training[key] = value
        else:
            method_args[key] = value
    changes = {"method_args": method_args, "wrapper_args": wrapper_args}
    return section.model_copy(update=training | changes)


def best(trials: Sequence[Trial], oracle: Objectives | None) -> Trial:
    """Return the trial with the highest Average Success or, if given, the one closest to the oracle's objectives."""
    if oracle is None:
        return max(trials, key=lambda t: (t.average, -t.section.learning_rate))
    return min(trials, key=lambda t: sum((a - b) ** 2 for a, b in zip(t.objectives, oracle, strict=True)))


def holdout(benchmark: Benchmark, tune: TuneSection) -> Benchmark:
    """Return the train rows as a benchmark, with a part of each scope as its val split.

    That part is `tune.holdout_fraction` of the rows, drawn at random or, with `holdout: last`, the last rows of each instance.
    The benchmark's own val rows are left out, so that nothing is chosen on them.
    """
    rng = random.Random(tune.seed)
    rows = []
    for scope in SCOPES:
        train = benchmark.select(scope, TRAIN)
        if tune.holdout == "last":
            held = last_of_each(train, tune.holdout_fraction)
        else:
            held = set(rng.sample(range(len(train)), max(1, round(tune.holdout_fraction * len(train)))))
        if not 0 < len(held) < len(train):
            raise ConfigError(f"bench.tune: {len(train)} train rows of scope {scope!r} are too few to hold some out")
        rows += [replace(row, split=VAL if i in held else TRAIN) for i, row in enumerate(train)]
    return replace(benchmark, rows=tuple(rows))


def last_of_each(rows: Sequence[Row], fraction: float) -> set[int]:
    """Return the places of the last `fraction` of each instance's rows."""
    places: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        places.setdefault(instance_of(row.instance, row.question), []).append(i)
    return {i for own in places.values() for i in own[len(own) - round(fraction * len(own)) :]}
