"""How often intervals hold the true value, by simulation: `python benchmarks/coverage.py`.

Models, rows and seeds are drawn from known distributions, so that the true value is known: means far from and near the bounds,
paired differences, gaps to an oracle, differences of gaps, with 3 and 5 seeds, few and many instances, and with all, some or
none of the variance between seeds. The interval of `scopewise.statistics` stands beside those that it was chosen from. A
second part counts how often a method is said to lead that is not the best.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, ndtr, ndtri, stdtrit

from scopewise.record import manifest
from scopewise.statistics import Estimate, distance, estimate, lead

RESULTS = Path(__file__).parent / "results" / "coverage.json"
ROWS = 2
"""Rows of an instance."""
TOKENS = 10
"""Tokens of an answer: a row's value is the share of them that are right."""
RESAMPLES = 400
SEEDS, INSTANCES, SHARES = (3, 5), (20, 55), (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
PERCENT = (0.0, 100.0)
Spread = tuple[float, float, float]
"""Deviations of seeds, of instances, and of each instance with each seed."""


@dataclass(frozen=True)
class Case:
    """A situation with a known true value.

    Attributes:
        kind: What is estimated.
        about: What sets the case apart: seeds, instances, …
        truth: The true value.
        draw: Draws the data once and returns its estimate.
        bounds: Of the value.
        single: Whether the estimate is a mean of one model's rows or of differences, which the bootstraps can resample.
    """

    kind: str
    about: dict[str, float]
    truth: float
    draw: Callable[[np.random.Generator], Estimate]
    bounds: tuple[float, float] | None = None
    single: bool = True


def owner(instances: int) -> np.ndarray:
    """Return the instance of each row."""
    return np.repeat(np.arange(instances), ROWS)


def normal(rng: np.random.Generator, seeds: int, instances: int, spread: Spread) -> np.ndarray:
    """Return [seeds rows] normal values."""
    a, b, c = spread
    cells = (
        a * rng.normal(size=(seeds, 1)) + b * rng.normal(size=(1, instances)) + c * rng.normal(size=(seeds, instances))
    )
    return np.repeat(cells, ROWS, 1)


def percent(rng: np.random.Generator, seeds: int, instances: int, centre: float, spread: Spread) -> np.ndarray:
    """Return [seeds rows] percentages of right tokens, with normal deviations of their logits."""
    rate = expit(centre + normal(rng, seeds, instances, spread))
    return 100.0 * rng.binomial(TOKENS, rate) / TOKENS


def mean_percent(centre: float, spread: Spread) -> float:
    """Return the mean of `percent`: 100 E[expit(centre + N(0, Σ spread²))], by Gauss-Hermite quadrature."""
    points, weights = np.polynomial.hermite_e.hermegauss(100)
    return float(
        100 * (weights * expit(centre + points * np.hypot(np.hypot(*spread[:2]), spread[2]))).sum() / weights.sum()
    )


def shared(seeds: int, instances: int, share: float, error: float = 1.0) -> Spread:
    """Return spreads of which seeds make up `share` of the variance of a mean, instances the rest; its error is `error`."""
    between = (1 - share) * instances
    return error * (share * seeds) ** 0.5, error * between**0.5, error * (0.5 * (between or 1.0)) ** 0.5


def folded(mean: float, deviation: float) -> float:
    """Return E|N(mean, deviation²)|."""
    if deviation == 0:
        return abs(mean)
    z = mean / deviation
    return float(deviation * (2 / np.pi) ** 0.5 * np.exp(-z * z / 2) + mean * (1 - 2 * ndtr(-z)))


def cases() -> Iterator[Case]:
    """Yield all cases."""
    for seeds in SEEDS:
        for instances in INSTANCES:
            at = {"seeds": seeds, "instances": instances}
            for share in SHARES:
                spread = shared(seeds, instances, share)
                yield Case(
                    "mean, far from the bounds",
                    {**at, "seed_share": share},
                    0.0,
                    partial(_mean, seeds=seeds, instances=instances, spread=spread),
                )
            for centre in (2.0, 3.0, 4.5):
                for a, b in ((0.05, 1.5), (0.3, 1.5), (0.5, 0.5), (0.5, 0.1)):
                    spread = (a, b, 0.3)
                    yield Case(
                        "mean, near a bound",
                        {**at, "seed_logit": a, "instance_logit": b},
                        mean_percent(centre, spread),
                        partial(_mean_percent, seeds=seeds, instances=instances, centre=centre, spread=spread),
                        PERCENT,
                    )
            for share in SHARES:
                yield _difference(seeds, instances, share)
            for gap in (1.0, 3.0, 10.0):
                for a in (0.0, 1.0, 4.0):
                    yield _gap(seeds, instances, gap, a)
                    yield _gap_difference(seeds, instances, gap, a)


def hard_cases() -> Iterator[Case]:
    """Yield the cases in which seeds are far apart and the mean is near a bound: the odds differ by a factor of e."""
    for seeds, instances, centre in itertools.product(SEEDS, INSTANCES, (2.0, 3.0, 4.5)):
        spread = (1.0, 0.5, 0.3)
        yield Case(
            "mean, near a bound, seeds far apart",
            {"seeds": seeds, "instances": instances, "seed_logit": 1.0, "instance_logit": 0.5},
            mean_percent(centre, spread),
            partial(_mean_percent, seeds=seeds, instances=instances, centre=centre, spread=spread),
            PERCENT,
        )


def _mean(rng: np.random.Generator, seeds: int, instances: int, spread: Spread) -> Estimate:
    return estimate(normal(rng, seeds, instances, spread), owner(instances))


def _mean_percent(rng: np.random.Generator, seeds: int, instances: int, centre: float, spread: Spread) -> Estimate:
    return estimate(percent(rng, seeds, instances, centre, spread), owner(instances))


def _difference(seeds: int, instances: int, share: float) -> Case:
    """Two methods on the same rows, whose percentages share what an instance and a seed do to both."""
    seed, instance, both_ways = shared(seeds, instances, share, 0.8)
    own = (0.25 * seed, 0.25 * instance, 0.25 * both_ways)
    common = (0.3, 1.0, 0.0)
    here = owner(instances)

    def draw(rng: np.random.Generator) -> Estimate:
        both = normal(rng, seeds, instances, common)
        first, second = (
            100 * rng.binomial(TOKENS, expit(c + both + normal(rng, seeds, instances, own))) / TOKENS
            for c in (1.0, 0.6)
        )
        return estimate(first, here) - estimate(second, here)

    spread = (float(np.hypot(own[0], 0.3)), float(np.hypot(own[1], 1.0)), own[2])
    truth = mean_percent(1.0, spread) - mean_percent(0.6, spread)
    return Case("paired difference", {"seeds": seeds, "instances": instances, "seed_share": share}, truth, draw)


def _one_gap(rng: np.random.Generator, seeds: int, instances: int, gap: float, a: float) -> Estimate:
    """The gap of a model whose Unlearn Success is `gap` below a fixed oracle's, and whose Retention is half as far off."""
    parts = []
    for away in (gap, gap / 2):
        rows = -away + normal(rng, seeds, instances, (a, 8.0, 6.0))
        parts.append(estimate(rows, owner(instances)))
    return distance(parts)


def _gap(seeds: int, instances: int, gap: float, a: float) -> Case:
    truth = (folded(gap, a) + folded(gap / 2, a)) / 2
    about = {"seeds": seeds, "instances": instances, "gap": gap, "seed_deviation": a}
    return Case("gap to the oracle", about, truth, lambda rng: _one_gap(rng, seeds, instances, gap, a), None, False)


def _gap_difference(seeds: int, instances: int, gap: float, a: float) -> Case:
    further = gap + 2.0
    truth = (folded(further, a) + folded(further / 2, a) - folded(gap, a) - folded(gap / 2, a)) / 2
    about = {"seeds": seeds, "instances": instances, "gap": gap, "seed_deviation": a}

    def draw(rng: np.random.Generator) -> Estimate:
        return _one_gap(rng, seeds, instances, further, a) - _one_gap(rng, seeds, instances, gap, a)

    return Case("difference of gaps", about, truth, draw, None, False)


# What the interval was chosen from. ------------------------------------------------------------------------------------


def satterthwaite(found: Estimate) -> tuple[float, float]:
    """Return the t interval with Satterthwaite's degrees of freedom."""
    mean, s, i = found.errors.mean(0), found.seeds, found.instances
    parts = [found.by_seed.var(ddof=1) / s, (mean**2).sum(), -((found.errors - mean) ** 2).sum() / (s * (s - 1))]
    total = max(sum(parts), parts[0])
    bottom = parts[0] ** 2 / (s - 1) + parts[1] ** 2 / (i - 1) + parts[2] ** 2 / ((s - 1) * (i - 1))
    half = stdtrit(max(total**2 / bottom, 1.0), 0.975) * total**0.5 if bottom > 0 else 0.0
    return found.value - half, found.value + half


def seeds_alone(found: Estimate) -> tuple[float, float]:
    """Return the t interval of the seeds' means, as in `mean ± deviation over seeds`."""
    half = stdtrit(found.seeds - 1, 0.975) * found.by_seed.std(ddof=1) / found.seeds**0.5
    return found.value - half, found.value + half


def bootstraps(found: Estimate, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    """Return percentile, BCa and studentised intervals, resampling seeds and instances together."""
    s, i = found.errors.shape
    cells = found.by_seed[:, None] + found.errors * i  # [seeds instances]; their mean is that of all rows
    by_seed = rng.integers(0, s, (RESAMPLES, s))
    by_instance = rng.integers(0, i, (RESAMPLES, i))
    drawn = cells[by_seed[:, :, None], by_instance[:, None, :]]  # [resamples seeds instances]
    means = drawn.mean((1, 2))

    def error(y: np.ndarray) -> np.ndarray:
        m, rows, columns = y.mean((-2, -1), keepdims=True), y.mean(-1, keepdims=True), y.mean(-2, keepdims=True)
        a = ((rows - m) ** 2).sum((-2, -1)) / (s * (s - 1))
        b = ((columns - m) ** 2).sum((-2, -1)) / (i * (i - 1))
        c = ((y - rows - columns + m) ** 2).sum((-2, -1)) / (s * (s - 1) * i * (i - 1))
        return np.sqrt(a + np.maximum(b - c, 0))

    centre, own = cells.mean(), float(error(cells))
    low, high = np.quantile(means, [0.025, 0.975])
    found_intervals = {"percentile bootstrap (before)": (float(low), float(high))}
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = (means - centre) / error(drawn)
    ratios = ratios[np.isfinite(ratios)]
    ends = np.quantile(ratios, [0.975, 0.025]) if len(ratios) else np.zeros(2)
    found_intervals["bootstrap t"] = (float(centre - ends[0] * own), float(centre - ends[1] * own))
    influence = np.concatenate([(cells.mean(1) - centre) / s, (cells.mean(0) - centre) / i])
    spread = (influence**2).sum() ** 1.5
    skew = (influence**3).sum() / (6 * spread) if spread > 0 else 0.0
    shift = ndtri(np.clip((means < centre).mean(), 1 / RESAMPLES, 1 - 1 / RESAMPLES))
    at = [ndtr(shift + (shift + z) / (1 - skew * (shift + z))) for z in (-1.96, 1.96)]
    low, high = np.quantile(means, np.clip(at, 0, 1))
    return found_intervals | {"BCa bootstrap": (float(low), float(high))}


def measure(case: Case, repeats: int, compared: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return the coverage of each interval in a case, in percent, and the mean width of ours."""
    held: dict[str, list[bool]] = {}
    widths = []
    for k in range(repeats):
        found = case.draw(rng)
        own = found.interval(case.bounds)
        assert own.low is not None
        assert own.high is not None
        widths.append(own.high - own.low)
        ends = {
            "ours": (own.low, own.high),
            "t of the seeds": seeds_alone(found),
            "Satterthwaite": satterthwaite(found),
        }
        if case.single and k < compared:
            ends |= bootstraps(found, rng)
        for name, (low, high) in ends.items():
            held.setdefault(name, []).append(bool(low - 1e-9 <= case.truth <= high + 1e-9))
    coverage = {name: round(100 * float(np.mean(hits)), 2) for name, hits in held.items()}
    return {"kind": case.kind, **case.about, "truth": case.truth, "width": float(np.mean(widths)), "coverage": coverage}


# Who leads. ------------------------------------------------------------------------------------------------------------

LEADS = (
    ("all ten are equally good", (5.0,) * 10),
    ("two are equally good, eight far behind", (5.0, 5.0, *(25.0,) * 8)),
    ("five are equally good, five far behind", (*(5.0,) * 5, *(25.0,) * 5)),
    ("one is better by 2 points, eight far behind", (5.0, 7.0, *(25.0,) * 8)),
    ("one is better by 4 points, eight far behind", (5.0, 9.0, *(25.0,) * 8)),
    ("one is better by 8 points, eight far behind", (5.0, 13.0, *(25.0,) * 8)),
)
"""True distances to the oracle of ten methods."""


def leading(
    gaps: tuple[float, ...], seeds: int, instances: int, a: float, rng: np.random.Generator
) -> tuple[bool, bool]:
    """Draw ten methods once; return whether one is said to lead, and whether it is the single best."""
    shared_rows = normal(rng, seeds, instances, (0.0, 6.0, 0.0))
    found = []
    for gap in gaps:
        parts = [
            estimate(-g + shared_rows + normal(rng, seeds, instances, (a, 4.0, 6.0)), owner(instances))
            for g in (gap, gap / 2)
        ]
        found.append(distance(parts))
    best = min(range(len(found)), key=lambda k: found[k].value)
    behind = {str(k): found[k] - found[best] for k in range(len(found)) if k != best}
    said = lead(str(best), found[best], behind).leads
    return said, said and gaps[best] == min(gaps) and gaps.count(min(gaps)) == 1


def main() -> None:
    """Run the simulation and write `results/coverage.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=4000, help="Draws of each case.")
    parser.add_argument("--compared", type=int, default=1000, help="Draws for which the bootstraps are computed too.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hard", action="store_true", help="Only the hard cases, into results/coverage_hard.json.")
    parser.add_argument("--output", type=Path, default=None)
    settings = parser.parse_args()
    output = settings.output or (RESULTS.with_name("coverage_hard.json") if settings.hard else RESULTS)
    begin, origin = time.perf_counter(), manifest(None, None)
    found = []
    for number, case in enumerate(hard_cases() if settings.hard else cases()):
        rng = np.random.default_rng([settings.seed, number])
        found.append(measure(case, settings.repeats, settings.compared, rng))
        print(found[-1]["kind"], case.about, found[-1]["coverage"], flush=True)
    said = []
    for number, (name, gaps) in enumerate(() if settings.hard else LEADS):
        for seeds in SEEDS:
            for a in (0.0, 1.0, 3.0):
                rng = np.random.default_rng([settings.seed, 10_000 + number, seeds, int(a)])
                count = settings.repeats // 4
                results = np.array([leading(gaps, seeds, 55, a, rng) for _ in range(count)])
                right = 100 * float(results[:, 1].mean())
                wrong = 100 * float((results[:, 0] & ~results[:, 1]).mean())
                said.append(
                    {"case": name, "seeds": seeds, "instances": 55, "seed_deviation": a}
                    | {"right": right, "wrong": wrong}
                )
                print(said[-1], flush=True)
    document = {
        "config": {"repeats": settings.repeats, "compared": settings.compared, "seed": settings.seed, "rows": ROWS}
        | {"tokens": TOKENS, "resamples": RESAMPLES},
        "seconds": round(time.perf_counter() - begin, 1),
        "coverage": found,
        "leads": said,
        "origin": origin,
    }
    output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
