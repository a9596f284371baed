"""A random region."""

from __future__ import annotations

import bisect
import itertools
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence

from torch import nn

from scopewise.data.prompt import Encoded
from scopewise.errors import ConfigError
from scopewise.localizers.base import Localizer, matrices
from scopewise.region import Entry, Region, module_of


class Random(Localizer):
    """As many parameters as another region, chosen at random: the control that asks whether *where* matters.

    Units (modules, or matrices where the other region was decided by matrix) are drawn uniformly from all sets of units
    that have exactly the same number of parameters, so that the two regions differ in place alone.
    """

    name = "random"
    needs_size = True

    def region(
        self,
        model: nn.Module,
        forget: Sequence[Encoded],
        retain: Sequence[Encoded],
        seed: int,
        size: Region | None = None,
    ) -> Region:
        """Return a random region with the size of `size`.

        Raises:
            ConfigError: `size` is None, or no set of units has exactly its number of parameters (it was edited).
        """
        if size is None:
            raise ConfigError("localizer random: no region to take the size from; give one, made by `gradient`")
        by_matrix = size.settings.get("unit") == "matrix"
        names = {name: (name if by_matrix else module_of(name)) for name in matrices(model)}
        sizes: Counter[str] = Counter()
        for name, parameter in matrices(model).items():
            sizes[names[name]] += parameter.numel()
        chosen = draw_subset(sizes, size.parameters, random.Random(seed))
        entries = tuple(
            Entry(name, p.numel(), names[name] in chosen, module_of(name)) for name, p in matrices(model).items()
        )
        return Region(
            self.name,
            {"unit": size.settings.get("unit", "module"), "seed": seed, "size_of": size.localizer},
            entries,
            seconds=size.seconds,
        )


def draw_subset(sizes: Mapping[str, int], total: int, rng: random.Random) -> frozenset[str]:
    """Draw uniformly from all subsets of `sizes` that sum to `total` exactly.

    Units of equal size are interchangeable: first how many of each size is drawn, weighted by the number of subsets
    with those counts, then which ones.

    Raises:
        ConfigError: no subset has that sum.
    """
    groups: dict[int, list[str]] = {}
    for name, size in sizes.items():
        groups.setdefault(size, []).append(name)
    order = sorted(groups)
    ways: list[dict[int, int]] = [{0: 1}]  # ways[k][s]: subsets of the first k groups that sum to s
    for size in order:
        counted: dict[int, int] = {}
        for before, number in ways[-1].items():
            for k in range(len(groups[size]) + 1):
                reached = before + k * size
                if reached <= total:
                    counted[reached] = counted.get(reached, 0) + number * math.comb(len(groups[size]), k)
        ways.append(counted)
    if total not in ways[-1]:
        raise ConfigError(f"localizer random: no set of units has exactly {total} parameters; use an unedited region")
    chosen: set[str] = set()
    rest = total
    for index in reversed(range(len(order))):
        size = order[index]
        options = [k for k in range(len(groups[size]) + 1) if rest - k * size in ways[index]]
        weights = [math.comb(len(groups[size]), k) * ways[index][rest - k * size] for k in options]
        pick = rng.randrange(sum(weights))  # exact: the counts of subsets outgrow a float
        below = list(itertools.accumulate(weights))
        k = options[bisect.bisect_right(below, pick)]
        chosen.update(rng.sample(groups[size], k))
        rest -= k * size
    return frozenset(chosen)
