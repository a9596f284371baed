"""Bootstrap intervals over rows and seeds, the same draws for all that is compared. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

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


def interval_of(
    statistic: Callable[[list[np.ndarray]], float], samples: Sequence[np.ndarray], resamples: int = 500
) -> Interval:
    """Return a statistic of several samples (an AUC, a p-value) with its bootstrap interval, each resampled by itself.

    Args:
        statistic: Takes arrays like `samples`; a value that is not finite leaves its resample out.
        samples: One array for each set of rows.
        resamples: How many; fewer than of means, since each is a call.
    """
    rng = np.random.default_rng(len(samples))
    drawn = [
        statistic([sample[rng.integers(0, len(sample), len(sample))] for sample in samples]) for _ in range(resamples)
    ]
    finite = [value for value in drawn if np.isfinite(value)]
    value = statistic(list(samples))
    low, high = np.quantile(finite, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]) if finite else (value, value)
    return Interval(value, float(low), float(high))
