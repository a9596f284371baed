"""Bootstrap intervals over rows and seeds, and paired differences between methods. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean with its bootstrap interval.

    Attributes:
        value: The mean over rows and seeds.
        low: Lower end of the 95 % interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Resampled:
    """A mean and what it becomes when rows and seeds are drawn with replacement.

    Two of them are *paired*: as far as they have as many rows and seeds, they met the same draws, so that their difference
    is that of the same rows.

    Attributes:
        value: The mean.
        draws: The mean of each resample.
    """

    value: float
    draws: np.ndarray

    def __sub__(self, other: Resampled) -> Resampled:
        return Resampled(self.value - other.value, self.draws - other.draws)

    def __abs__(self) -> Resampled:
        return Resampled(abs(self.value), np.abs(self.draws))

    def interval(self) -> Interval:
        """Return the 95 % interval, by percentiles."""
        low, high = np.quantile(self.draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return Interval(self.value, float(low), float(high))


def resample(models: Sequence[Sequence[float]]) -> Resampled:
    """Resample a mean over rows, of one model for each seed.

    Seeds are drawn as rows are, where there are several: what a method does with another seed is as uncertain as what it
    does with another row.

    Args:
        models: [seeds][rows] of a metric; the rows are the same for each.
    """
    values = np.array(models, dtype=float)
    by_seed = _row_draws(values.shape[1]) @ values.T / values.shape[1]  # [resamples seeds]
    return Resampled(float(values.mean()), np.take_along_axis(by_seed, _seed_draws(len(models)), axis=1).mean(1))


def mean_of(parts: Sequence[Resampled]) -> Resampled:
    """Return the mean of several, each over rows of its own: Average Success of the two Successes."""
    return Resampled(float(np.mean([p.value for p in parts])), np.mean([p.draws for p in parts], axis=0))


@cache
def _row_draws(rows: int) -> np.ndarray:
    """How often each row is in each resample: the same for all metrics with as many rows."""
    return np.random.default_rng(rows).multinomial(rows, np.full(rows, 1 / rows), RESAMPLES)


@cache
def _seed_draws(seeds: int) -> np.ndarray:
    return np.random.default_rng(seeds).integers(0, seeds, (RESAMPLES, seeds))


def compare(rows: Sequence[Mapping[str, Any]], values: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what `results.json` keeps of each method and protocol: intervals, oracle gap, differences to the others.

    Args:
        rows: The rows of results.
        values: The evaluation document of each, metric key → value with `per_row`.

    Returns:
        One object per method and protocol. `success` has the interval of Unlearn, Retention and Average Success;
        `oracle_gap` that of the mean absolute distance of the first two to the oracle's, in points; `differences` that of
        the Average Success to every other method of the protocol, paired by row and seed.
    """
    split = "val" if any(key.endswith("/val") for value in values for key in value) else "train"
    keys = {name: f"{name}/{split}" for name in ("unlearn_success", "retention_success")}
    groups: dict[tuple[str, str | None], list[Mapping[str, Any]]] = {}
    for row, value in zip(rows, values, strict=True):
        if all(value.get(key, {}).get("per_row") for key in keys.values()):
            groups.setdefault((row["method"], row["protocol"]), []).append(value)
    parts = {
        group: {name: resample([model[key]["per_row"] for model in models]) for name, key in keys.items()}
        for group, models in groups.items()
    }
    average = {group: mean_of(list(part.values())) for group, part in parts.items()}
    oracle = parts.get(("oracle", None))
    found = []
    for (method, protocol), part in parts.items():
        success = {**part, "average_success": average[method, protocol]}
        gap = None if oracle is None else mean_of([abs(part[name] - oracle[name]) for name in part])
        others = {
            other: average[method, protocol] - average[other, protocol]
            for other, same in parts
            if same == protocol is not None and other != method
        }
        found.append(
            {
                "method": method,
                "protocol": protocol,
                "split": split,
                "success": {name: asdict(value.interval()) for name, value in success.items()},
                "oracle_gap": None if gap is None else asdict(gap.interval()),
                "differences": {other: asdict(value.interval()) for other, value in others.items()},
            }
        )
    return found
