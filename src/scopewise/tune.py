"""The search that every method of a bench gets alike: a small grid, chosen on a held-out part of train."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scopewise.config import TuneSection, UnlearnSection
from scopewise.data.rows import SCOPES, TRAIN, VAL, Benchmark
from scopewise.errors import ConfigError
from scopewise.methods.base import Method


@dataclass(frozen=True)
class Trial:
    """A point of the grid and its Average Success on the held-out part of train, in percent."""

    section: UnlearnSection
    score: float

    def document(self) -> dict[str, Any]:
        """Return what `results.json` keeps of it."""
        weight = self.section.method_args.get("retain_weight", 1.0)
        return {"learning_rate": self.section.learning_rate, "retain_weight": weight, "score": self.score}


def grid(section: UnlearnSection, method: Method, tune: TuneSection) -> list[UnlearnSection]:
    """Return the settings to try: as many for every method.

    Methods with a retain term try `learning_rates` x `retain_weights`. A method without one has no weight to choose (a
    factor of its only term is invisible to Adam): it tries as many learning rates, evenly spaced over the same range.
    """
    rates, weights = tune.learning_rates, tune.retain_weights or (1.0,)
    if not rates:
        raise ConfigError("bench.tune.learning_rates: none given; the tuned protocol needs a grid")
    if not method.retain_terms:
        finer: Sequence[float] = np.geomspace(min(rates), max(rates), len(rates) * len(weights)).tolist()
        return [section.model_copy(update={"learning_rate": rate}) for rate in finer]
    return [
        section.model_copy(
            update={"learning_rate": rate, "method_args": {**section.method_args, "retain_weight": weight}}
        )
        for rate in rates
        for weight in weights
    ]


def holdout(benchmark: Benchmark, fraction: float, seed: int) -> Benchmark:
    """Return the train rows as a benchmark of their own: a random `fraction` of each scope is its val split.

    The benchmark's own val rows are left out altogether: nothing is ever chosen on them.
    """
    rng = random.Random(seed)
    rows = []
    for scope in SCOPES:
        train = benchmark.select(scope, TRAIN)
        count = max(1, round(fraction * len(train)))
        if count >= len(train):
            raise ConfigError(f"bench.tune: {len(train)} train rows of scope {scope!r} are too few to hold some out")
        held = set(rng.sample(range(len(train)), count))
        rows += [replace(row, split=VAL if i in held else TRAIN) for i, row in enumerate(train)]
    return replace(benchmark, rows=tuple(rows))
