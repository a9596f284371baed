"""The random region: exactly the wanted size, and uniform over the sets of that size."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest

from scopewise.errors import ConfigError
from scopewise.localizers.random import draw_subset

SIZES = {"a": 1, "b": 1, "c": 2, "d": 3, "e": 3, "f": 4}


@pytest.mark.parametrize("total", [0, 1, 4, 7, 14])
def test_sum_is_exact(total: int) -> None:
    for seed in range(20):
        chosen = draw_subset(SIZES, total, random.Random(seed))
        assert sum(SIZES[name] for name in chosen) == total


def test_uniform_over_all_subsets_of_the_sum() -> None:
    """Sum 4 is reached by {f}, {a,d}, {a,e}, {b,d}, {b,e}, {a,b,c}: six sets, 5 degrees of freedom.

    The 99.99 % quantile of chi-square with 5 degrees of freedom is 25.7. The seed is fixed, so the test is not flaky;
    a draw that chose the number per size first and uniformly would give {f} a third instead of a sixth.
    """
    subsets = {
        frozenset(s)
        for n in range(len(SIZES) + 1)
        for s in itertools.combinations(SIZES, n)
        if sum(SIZES[x] for x in s) == 4
    }
    assert len(subsets) == 6
    rng = random.Random(0)
    draws = 3000
    seen = Counter(draw_subset(SIZES, 4, rng) for _ in range(draws))
    assert set(seen) == subsets
    expected = draws / len(subsets)
    assert sum((seen[s] - expected) ** 2 / expected for s in subsets) < 25.7


def test_same_seed_same_region() -> None:
    first, again = (draw_subset(SIZES, 7, random.Random(3)) for _ in range(2))
    assert first == again


@pytest.mark.parametrize(("sizes", "total"), [({"a": 2, "b": 4}, 3), ({"a": 2}, 4), ({}, 1)])
def test_impossible_total_is_refused(sizes: dict[str, int], total: int) -> None:
    with pytest.raises(ConfigError, match=rf"no set of units has exactly {total} parameters"):
        draw_subset(sizes, total, random.Random(0))


def test_hundreds_of_units() -> None:
    """Counts of subsets of 400 units outgrow a float (2^400); the draw must stay exact."""
    sizes = {str(i): 1000 + i % 5 for i in range(400)}
    total = sum(sizes[str(i)] for i in range(200))
    assert sum(sizes[n] for n in draw_subset(sizes, total, random.Random(1))) == total
