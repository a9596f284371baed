"""Means over rows and seeds with intervals that hold for few seeds, and whether one method leads. Imports no torch.

Two things are drawn at random: the seeds of training, and the *instances* (persons, books) that the rows ask about. Rows of
one instance are not independent, so the instance is the unit and not the row. Every seed sees every instance: the two are
crossed. `docs/statistics.md` explains the intervals, `benchmarks/coverage.py` measures how often they hold the true value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from scipy.special import ndtr, stdtr, stdtrit

CONFIDENCE = 0.95
RESAMPLES = 2000
LEAST_INSTANCES = 5
"""Instances below which no verdict is given."""
LEAST_SEEDS = 3
"""Seeds below which no method is said to lead."""


@dataclass(frozen=True)
class Interval:
    """A value with its interval.

    Attributes:
        value: The estimate.
        low: Lower end of the 95 % interval; None if there is none, as for rows of a single instance.
        high: Upper end.
    """

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Estimate:
    """A mean over rows and seeds, with what each instance adds to its error under each seed.

    Estimates on the same instances and seeds can be subtracted and averaged. That pairs them: what two methods have in
    common on an instance, or with a seed, cancels. An estimate with a single seed, such as that of an oracle, is treated as
    fixed: every seed of the other one is compared with it.

    Attributes:
        by_seed: [seeds] The mean over rows of each seed.
        errors: [seeds instances] How much each instance shifts its seed's mean; each row of the array sums to zero, and its
            squares sum to the variance of that mean.
        instances: Number of instances; of several estimates together, the fewest that one of them has.
        bias: By how much the value is too high on average (see `distance`).
    """

    by_seed: np.ndarray
    errors: np.ndarray
    instances: int
    bias: float = 0.0

    @property
    def value(self) -> float:
        """The mean over seeds."""
        return float(self.by_seed.mean())

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len(self.by_seed)

    def __sub__(self, other: Estimate) -> Estimate:
        return Estimate(
            self.by_seed - other.by_seed,
            self.errors - other.errors,
            min(self.instances, other.instances),
            self.bias - other.bias,
        )

    def uncertainty(self) -> tuple[float, float]:
        """Return the standard error of the value, and its degrees of freedom.

        Formula, with S seeds, I instances, the instances' errors e_si and their mean over seeds e_i:

            seeds      A = Σ_s (mean of s - value)² / (S (S - 1))
            instances  B = max(0, Σ_i e_i² - Σ_si (e_si - e_i)² / (S (S - 1)))
            standard error = √(A + B)
            degrees of freedom = 1 / (w / (S - 1) + (1 - w) / (I - 1)),   w = A / (A + B)

        These are the mean squares of a two-way layout without replication: A already contains the interaction of seeds and
        instances, so it is subtracted from B. Satterthwaite's degrees of freedom use w² instead of w. With three seeds they
        are too high whenever A is small by chance, and the interval then contains the true value in only 92 % of cases.
        """
        mean = self.errors.mean(0)
        rows = float((mean**2).sum())
        if self.seeds == 1:
            return rows**0.5, float(max(self.instances - 1, 0))
        pairs = self.seeds * (self.seeds - 1)
        seeds = float(((self.by_seed - self.by_seed.mean()) ** 2).sum()) / pairs
        rows = max(0.0, rows - float(((self.errors - mean) ** 2).sum()) / pairs)
        total = seeds + rows
        if total == 0 or self.instances == 1:
            return total**0.5, float(max(self.instances - 1, 1))
        share = seeds / total
        return total**0.5, 1 / (share / (self.seeds - 1) + (1 - share) / (self.instances - 1))

    def interval(self, bounds: tuple[float, float] | None = None, level: float = CONFIDENCE) -> Interval:
        """Return the t interval; none with fewer than two instances.

        Args:
            bounds: Least and largest possible value. Near one of them the mean of a few seeds is skewed, so that the end
                away from the bound is that of a t interval of the logit where this lies further away. If every row is at a
                bound, that end is t² / (I + t²) of the way to the other (the score interval with no event in I instances).
            level: Confidence, 0 to 1.
        """
        if self.instances < 2:
            return Interval(self.value, None, None)
        error, freedom = self.uncertainty()
        quantile = float(stdtrit(freedom, (1 + level) / 2))
        low = self.value - max(self.bias, 0.0) - quantile * error
        high = self.value - min(self.bias, 0.0) + quantile * error
        if bounds is None:
            return Interval(self.value, low, high)
        lowest, width = bounds[0], bounds[1] - bounds[0]
        share = min(max((self.value - lowest) / width, 0.0), 1.0)
        room = share * (1 - share)
        if room > 0:
            step = min(quantile * error / width / room, 700.0)
            ends = [share / (share + (1 - share) * np.exp(sign * step)) for sign in (1, -1)]
        else:
            reach = quantile**2 / (self.instances + quantile**2)
            ends = [max(0.0, share - reach), min(1.0, share + reach)]
        low, high = min(low, lowest + width * float(ends[0])), max(high, lowest + width * float(ends[1]))
        return Interval(self.value, max(low, bounds[0]), min(high, bounds[1]))

    def p_value(self) -> float:
        """Return the two-sided p-value of the value being zero: the interval of that level just reaches zero."""
        error, freedom = self.uncertainty()
        away = abs(self.value) - max(0.0, self.bias if self.value > 0 else -self.bias)
        if away <= 0 or self.instances < 2:
            return 1.0
        return float(2 * stdtr(freedom, -away / error)) if error > 0 else 0.0


def estimate(values: np.ndarray, instance: np.ndarray, instances: int | None = None) -> Estimate:
    """Return the mean over rows and seeds.

    Args:
        values: [seeds rows] The rows are the same for each seed; a row that is NaN for one seed is left out for all.
        instance: [rows] The number of each row's instance, from 0.
        instances: Total number of instances; larger than in these rows if the estimate is compared with one on other rows.

    Raises:
        ValueError: no row has a value for every seed.
    """
    kept = ~np.isnan(values).any(0)
    values, instance = values[:, kept], instance[kept]
    if not values.size:
        raise ValueError("no row has a value for every seed")
    by_seed = values.mean(1)
    count = instances or int(instance.max()) + 1
    away = (values - by_seed[:, None]) / values.shape[1]
    errors = np.stack([np.bincount(instance, one, count) for one in away])
    present = len(np.unique(instance))
    return Estimate(by_seed, errors * (present / max(present - 1, 1)) ** 0.5, present)


def mean_of(parts: Sequence[Estimate]) -> Estimate:
    """Return the mean of several estimates, each over its own rows, such as Average Success from the two Successes."""
    return Estimate(
        np.mean([part.by_seed for part in parts], axis=0),
        np.mean([part.errors for part in parts], axis=0),
        min(part.instances for part in parts),
        float(np.mean([part.bias for part in parts])),
    )


def distance(parts: Sequence[Estimate]) -> Estimate:
    """Return the mean absolute difference: over the parts, and over seeds of *each seed's* distance.

    Seeds above and below zero do not cancel. The noise of rows makes a distance too large on average if the difference is
    small: of a difference d with standard error τ, by E|d + τz| - |d| = τ √(2/π) exp(-d²/2τ²) - 2 |d| Φ(-|d|/τ). The value
    is not corrected; instead this bias extends the lower end of the interval.

    Args:
        parts: Differences, such as Unlearn and Retention Success minus the oracle's.
    """
    bias = []
    for part in parts:
        noise, size = np.sqrt((part.errors**2).sum(-1)), np.abs(part.by_seed)
        ratio = np.divide(size, noise, out=np.full_like(size, np.inf), where=noise > 0)
        bias.append(noise * (2 / np.pi) ** 0.5 * np.exp(-(ratio**2) / 2) - 2 * size * ndtr(-ratio))
    signs = [np.where(part.by_seed < 0, -1.0, 1.0) for part in parts]
    return Estimate(
        np.mean([np.abs(part.by_seed) for part in parts], axis=0),
        np.mean([sign[:, None] * part.errors for sign, part in zip(signs, parts, strict=True)], axis=0),
        min(part.instances for part in parts),
        float(np.mean(bias)),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for multiple comparisons by Holm's step-down method: the smallest times n, and so on.

    The probability that all those below 0.05 are right is at least 0.95.
    """
    order = np.argsort(p_values, kind="stable")
    found, largest = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[at]))
        found[at] = largest
    return found


@dataclass(frozen=True)
class Rival:
    """A method that the best one is compared with.

    Attributes:
        difference: How far it is behind the best, in the metric's unit; the intervals of all rivals hold simultaneously.
        p_value: Corrected for the number of rivals.
    """

    difference: Interval
    p_value: float


Reason = Literal["", "one method", "few instances", "few seeds", "close"]


@dataclass(frozen=True)
class Lead:
    """The best of several methods, and whether it leads.

    Attributes:
        best: The one with the best value.
        reason: Why it is not said to lead: there is no other, there are fewer than `LEAST_INSTANCES` or `LEAST_SEEDS`, or a
            rival may be as good (`close`). Empty if it leads.
        seeds: Fewest seeds of a comparison.
        instances: Fewest instances.
        rivals: Each other method.
    """

    best: str
    reason: Reason
    seeds: int
    instances: int
    rivals: Mapping[str, Rival]

    @property
    def leads(self) -> bool:
        """Whether every rival is significantly behind, after the correction for multiple comparisons."""
        return not self.reason


def lead(best: str, value: Estimate, behind: Mapping[str, Estimate]) -> Lead:
    """Return whether a method leads: Holm's correction over its comparisons with all others, at 5 %.

    A method that is not truly the best is declared the leader in at most 5 % of cases, since it would have to beat the
    truly best method too.

    Args:
        best: The method with the best value.
        value: Its value.
        behind: Every other method → how far it is behind, paired by seed and instance; positive.
    """
    together = 1 - (1 - CONFIDENCE) / max(len(behind), 1)
    corrected = holm([difference.p_value() for difference in behind.values()])
    rivals = {
        name: Rival(difference.interval(level=together), p)
        for (name, difference), p in zip(behind.items(), corrected, strict=True)
    }
    seeds = min(d.seeds for d in (value, *behind.values()))
    instances = min(d.instances for d in (value, *behind.values()))
    reason: Reason = ""
    if not rivals:
        reason = "one method"
    elif instances < LEAST_INSTANCES:
        reason = "few instances"
    elif seeds < LEAST_SEEDS:
        reason = "few seeds"
    elif any(rival.p_value >= 1 - CONFIDENCE or rival.difference.value <= 0 for rival in rivals.values()):
        reason = "close"
    return Lead(best, reason, seeds, instances, rivals)


def tails(units: int) -> tuple[float, float]:
    """Return which quantiles of a bootstrap's draws are the ends of a 95 % interval, given how many units are resampled.

    The percentile interval is too narrow for few units. These quantiles make it as wide as a t interval would be:
    Φ(±t √(n / (n - 1))), with t of n - 1 degrees of freedom (Hesterberg 2015, "expanded percentile interval").
    """
    reach = float(stdtrit(max(units - 1, 1), (1 + CONFIDENCE) / 2)) * (units / max(units - 1, 1)) ** 0.5
    return float(ndtr(-reach)), float(ndtr(reach))


def mean_interval(values: np.ndarray, instance: np.ndarray) -> Interval:
    """Return a mean over rows of one model with its bootstrap interval over instances, which stays in the values' range.

    Args:
        values: [rows]
        instance: [rows] The number of each row's instance, from 0.
    """
    value, count = float(values.mean()), len(np.unique(instance))
    if count < 2:
        return Interval(value, None, None)
    draws = resamples_of(count)
    order = np.unique(instance, return_inverse=True)[1]
    total = draws @ np.bincount(order, values, count)
    low, high = np.quantile(total / (draws @ np.bincount(order, minlength=count)), tails(count))
    return Interval(value, float(low), float(high))


@cache
def resamples_of(count: int) -> np.ndarray:
    """Return how often each of `count` units is in each resample of a bootstrap: [resamples units]."""
    return np.random.default_rng(count).multinomial(count, np.full(count, 1 / count), RESAMPLES)


def interval_of(
    statistic: Callable[[list[np.ndarray]], float], samples: Sequence[np.ndarray], resamples: int = 500
) -> Interval:
    """Return a statistic of several samples (an AUC, a p-value) with its bootstrap interval; each is resampled separately.

    Args:
        statistic: Takes arrays like `samples`; resamples whose value is not finite are left out.
        samples: One array for each set of rows.
        resamples: How many; fewer than of means, since each is a call.
    """
    rng = np.random.default_rng(len(samples))
    drawn = [
        statistic([sample[rng.integers(0, len(sample), len(sample))] for sample in samples]) for _ in range(resamples)
    ]
    finite = [value for value in drawn if np.isfinite(value)]
    value = statistic(list(samples))
    low, high = np.quantile(finite, tails(min(map(len, samples)))) if finite else (value, value)
    return Interval(value, float(low), float(high))
