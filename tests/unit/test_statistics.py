"""Intervals over rows and seeds: values derived by hand, how often they hold the true value, and who leads."""

from __future__ import annotations

import time

import numpy as np
import pytest

from scopewise.statistics import (
    Estimate,
    distance,
    estimate,
    holm,
    interval_of,
    lead,
    mean_interval,
    mean_of,
    tails,
)

PERCENT = (0.0, 100.0)


def of(*models: list[float], instance: list[int] | None = None) -> Estimate:
    """Return the estimate of models on rows that are an instance each, unless it is said otherwise."""
    return estimate(np.array(models, dtype=float), np.array(instance or range(len(models[0]))))


def half(found: Estimate) -> float:
    """Return half the width of the interval."""
    interval = found.interval()
    assert interval.low is not None
    assert interval.high is not None
    assert (interval.low + interval.high) / 2 == pytest.approx(found.value)
    return (interval.high - interval.low) / 2


def test_constant_rows_have_no_spread() -> None:
    assert of([3.0] * 7, [3.0] * 7).interval(PERCENT) == of([3.0] * 7).interval(PERCENT)
    assert (of([3.0] * 7).interval(PERCENT).low, of([3.0] * 7).interval(PERCENT).high) == (3.0, 3.0)


def test_one_seed_is_the_t_interval_of_its_rows() -> None:
    """Rows 1, 2, 3, 4: mean 2.5, deviation √(5/3), error √(5/12) = 0.6455, t of 3 degrees 3.1824: 2.5 ± 2.0543."""
    assert half(of([1, 2, 3, 4])) == pytest.approx(2.0543, abs=1e-4)


def test_without_variance_of_rows_it_is_the_t_interval_of_the_seeds() -> None:
    """Seeds 40, 50, 60: deviation 10, error 10/√3 = 5.7735, t of 2 degrees 4.3027: 50 ± 24.841."""
    assert half(of([40] * 9, [50] * 9, [60] * 9)) == pytest.approx(24.841, abs=1e-3)


def test_without_variance_of_seeds_more_of_them_change_nothing() -> None:
    """The same values under each seed: nothing was learned from the second and the third."""
    rows = [1.0, 2.0, 3.0, 4.0]
    assert half(of(rows, rows, rows)) == pytest.approx(half(of(rows)))


def test_rows_of_one_instance_count_once() -> None:
    """Each row twice, of the same instance: as much is known as from each row once."""
    twice = [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0]
    assert half(of(twice, instance=[0, 0, 1, 1, 2, 2, 3, 3])) == pytest.approx(half(of([1, 2, 3, 4])))
    assert half(of(twice)) < half(of([1, 2, 3, 4])) / 1.4


def test_seeds_and_instances_together() -> None:
    """Seeds 0, 4 and 2, 10 on two instances: mean 4, seeds 2 and 6, instances 1 and 7, all residuals ±1.

    Mean squares: seeds 2 (4 + 4) = 16, instances 2 (9 + 9) = 36, residual 4; the variance of the mean of four is
    (16 + 36 - 4) / 4 = 12. One degree of freedom each, so t of one: 12.706 √12 = 44.015.
    """
    found = of([0, 4], [2, 10])
    error, freedom = found.uncertainty()
    assert error**2 == pytest.approx(12)
    assert freedom == pytest.approx(1)
    assert half(found) == pytest.approx(44.015, abs=1e-3)


def test_degrees_of_freedom_lie_between_those_of_seeds_and_of_instances() -> None:
    """Three seeds, ten instances, both without interaction: A and B by hand give the weights.

    Seeds -1, 0, 1 on top of instances 0 … 9: A = 2 / (3 · 2) = 1/3; B = Σ(i - 4.5)² / (10 · 9) = 82.5 / 90 = 11/12.
    w = 4/15; 1 / (4/15 / 2 + 11/15 / 9) = 1 / (2/15 + 11/135) = 135/29.
    """
    rows = np.arange(10.0)
    error, freedom = of(list(rows - 1), list(rows), list(rows + 1)).uncertainty()
    assert error**2 == pytest.approx(1 / 3 + 11 / 12)
    assert freedom == pytest.approx(135 / 29)


def test_one_instance_has_no_interval() -> None:
    found = of([1.0, 2.0], [3.0, 4.0], instance=[0, 0]).interval(PERCENT)
    assert (found.value, found.low, found.high) == (2.5, None, None)


def test_nothing_seen_is_not_nothing_there() -> None:
    """Twenty instances at 0: the upper end is t² / (20 + t²) with t of 19 degrees, 2.0930: 4.3808 / 24.3808 = 17.97 %."""
    found = of([0.0] * 20).interval(PERCENT)
    assert (found.value, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(17.97, abs=0.01)
    assert of([100.0] * 20).interval(PERCENT).low == pytest.approx(82.03, abs=0.01)


def test_near_a_bound_the_interval_stays_inside_and_reaches_further_in() -> None:
    """One row of twenty at 50, the others at 100: mean 97.5, error 2.5, t 2.0930; the t interval would end at 102.7.

    On the logit scale, log(.975/.025) = 3.6636 with error .025 / (.975 · .025) = 1.0256: 3.6636 - 2.1467 = 1.5169, which
    is 82.01 %, below 97.5 - 5.23 = 92.27.
    """
    found = of([50.0] + [100.0] * 19).interval(PERCENT)
    assert found.high == 100.0
    assert found.low == pytest.approx(82.01, abs=0.02)


def test_differences_are_paired() -> None:
    """One method is 5 points better on every row and with every seed, which differ wildly: no spread at all."""
    rows = np.random.default_rng(0).uniform(0, 90, (3, 60))
    difference = of(*(rows + 5).tolist()) - of(*rows.tolist())
    assert difference.value == pytest.approx(5.0)
    assert half(difference) == pytest.approx(0.0, abs=1e-9)


def test_average_is_the_mean_of_both_scopes_whatever_their_rows() -> None:
    first = estimate(np.zeros((1, 5)), np.arange(5), 50)
    together = mean_of([first, estimate(np.full((1, 50), 100.0), np.arange(50), 50)])
    assert together.value == 50.0
    assert together.instances == 5  # the fewer of the two decide
    assert half(together) == 0.0


def test_average_of_both_scopes_of_the_same_persons_is_that_of_their_sums() -> None:
    """Each person's forget and retain rows go together: the interval is that of the persons' averages."""
    rng = np.random.default_rng(1)
    forget, retain = rng.uniform(0, 100, (3, 12)), rng.uniform(0, 100, (3, 12))
    together = mean_of([of(*forget.tolist()), of(*retain.tolist())])
    assert half(together) == pytest.approx(half(of(*((forget + retain) / 2).tolist())))


def test_misses_on_either_side_of_the_oracle_do_not_cancel() -> None:
    """Oracle 60, seeds 50 and 70: each is 10 points away, though their mean is the oracle's."""
    oracle = of([60.0] * 8)
    gap = distance([of([50.0] * 8, [70.0] * 8) - oracle])
    assert gap.value == 10.0
    assert gap.by_seed.tolist() == [10.0, 10.0]


def test_noise_of_rows_makes_a_distance_too_large() -> None:
    """A true difference of 0 with error τ gives τ √(2/π) on average: with rows ±1, τ² = 8 / (7 · 8) = 1/7."""
    gap = distance([of([1.0, -1.0] * 4)])
    assert gap.value == 0.0
    assert gap.bias == pytest.approx((2 / np.pi / 7) ** 0.5)
    far = distance([of([101.0, 99.0] * 4)])
    assert far.bias == pytest.approx(0.0, abs=1e-9)


def test_p_value_is_where_the_interval_reaches_zero() -> None:
    found = of([1, 2, 3, 4], [2, 2, 5, 4], [0, 1, 2, 3])
    p = found.p_value()
    assert 0 < p < 0.5
    low = found.interval(level=1 - p).low
    assert low == pytest.approx(0.0, abs=1e-9)
    assert of([0.0] * 4).p_value() == 1.0
    assert of([1.0] * 4).p_value() == 0.0


def test_holm() -> None:
    """Sorted .01, .03, .04: times 3, 2 and 1, and never below the one before: .03, .06, .06."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def behind(points: float, seeds: int = 3, instances: int = 20) -> Estimate:
    """A rival that is behind by so many points, with seeds that differ by a tenth of a point."""
    return of(*[[points + 0.1 * s] * instances for s in range(seeds)])


def test_a_method_leads_only_if_all_others_are_behind() -> None:
    best = behind(0.0)
    assert lead("a", best, {"b": behind(5), "c": behind(9)}).leads
    wide = of([-9.0] * 20, [3.0] * 20, [12.0] * 20)
    found = lead("a", best, {"b": behind(5), "c": wide})
    assert (found.leads, found.reason) == (False, "close")
    assert found.rivals["b"].p_value < 0.05 < found.rivals["c"].p_value
    assert lead("a", best, {}).reason == "one method"
    assert lead("a", behind(0, 2), {"b": behind(5, 2)}).reason == "few seeds"
    assert lead("a", behind(0, 3, 4), {"b": behind(5, 3, 4)}).reason == "few instances"


def test_intervals_of_rivals_hold_together() -> None:
    """Two rivals: each interval has a confidence of 97.5 %; t of 2 degrees is 6.2053 there, 4.3027 at 95 %."""
    rival = lead("a", behind(0), {"b": behind(5), "c": behind(9)}).rivals["b"].difference
    assert rival.high is not None
    assert (rival.high - rival.value) / half(behind(5)) == pytest.approx(6.2053 / 4.3027, rel=1e-4)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_intervals_hold_the_true_value(seeds: int, share: float) -> None:
    """2000 draws with a true mean of 0, of whose variance seeds make up `share`: 95 ± 2 %, error of the count 0.5.

    `benchmarks/coverage.py` has many more cases, and the intervals that do not hold.
    """
    rng = np.random.default_rng(7)
    instances, held = 30, 0
    number = np.arange(instances)
    for _ in range(2000):
        cells = (share * seeds) ** 0.5 * rng.normal(size=(seeds, 1))
        cells = cells + ((1 - share) * instances) ** 0.5 * rng.normal(size=(1, instances))
        found = estimate(cells + 0.5 * instances**0.5 * rng.normal(size=(seeds, instances)), number).interval()
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0 <= found.high
    assert 0.93 <= held / 2000 <= 0.975


def test_the_percentile_bootstrap_is_widened_for_few_units() -> None:
    """Five units: t of 4 degrees 2.7764, times √(5/4) = 3.1042; Φ(-3.1042) = 0.00095. Many units: 0.025."""
    assert tails(5)[0] == pytest.approx(0.00095, abs=1e-5)
    assert tails(100_000)[0] == pytest.approx(0.025, abs=1e-4)
    rows = np.array([0.0, 100.0] * 200)
    found = mean_interval(rows, np.arange(400))  # error 2.5: 50 ± 4.9
    assert found.low == pytest.approx(45.1, abs=0.7)
    assert found.high == pytest.approx(54.9, abs=0.7)
    assert mean_interval(rows, np.zeros(400, dtype=int)).low is None
    same = interval_of(lambda samples: float(samples[0].mean()), [rows])
    assert same.low == pytest.approx(45.1, abs=1.0)


def test_a_large_table_is_compared_in_seconds() -> None:
    """25 methods, 5 seeds, 1600 rows: all pairs, gaps and the lead."""
    from scopewise.report.comparison import compared

    rng = np.random.default_rng(0)
    keys = {"unlearn_success/val": 800, "retention_success/val": 800}
    models = [("oracle", None, 0), *((f"m{k}", "tuned", seed) for k in range(25) for seed in range(5))]
    document = {
        "split": "val",
        "instances": {key: [row // 4 for row in range(rows)] for key, rows in keys.items()},
        "models": [
            {"method": name, "protocol": protocol, "seed": seed, "target_seed": 0}
            | {"values": {key: rng.uniform(0, 100, rows).tolist() for key, rows in keys.items()}}
            for name, protocol, seed in models
        ],
    }
    begin = time.process_time()
    found = compared(document)
    assert time.process_time() - begin < 5
    assert len(found["comparisons"]) == 26
    assert len(found["leads"][0]["rivals"]) == 24
