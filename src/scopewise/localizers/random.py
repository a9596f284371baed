"""A random region."""

from __future__ import annotations

import bisect
import itertools
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scopewise.errors import ConfigError
from scopewise.localizers.base import WHOLE, Localizer, Scopes, build_region, unit_means, unit_sizes
from scopewise.models.engine import Engine
from scopewise.models.matrices import input_dims, matrices
from scopewise.region import Region
from scopewise.registry import canonical


@dataclass(frozen=True, kw_only=True)
class Random(Localizer):
    """Random parameters, as many as another region has: the control that shows whether the *place* matters.

    Units are of the same kind as in the other region. Whole modules or matrices are drawn uniformly from all sets that
    have exactly the same number of parameters. Rows, columns and single weights are drawn uniformly among those of
    equal size, as many of each size as the other region has. So the two regions differ only in place. The other region
    has the same settings and seed; if it is not given, it is computed to get its size. The reported time is that of the
    other region.

    Choose it as the control: if a method does as well on a random region, only the size of the region mattered, not the
    place. It has no knob except the seed; use several seeds to separate the effect of the place from chance.

    Source: ours; the paper has no such control.

    Deviations: none.

    Attributes:
        size_of: The localizer whose region gives the size and the unit; it must have one mask for both terms. Default:
            ours, MemFlex's.
    """

    size_of: str = "gradient"

    name: ClassVar[str] = "random"

    def __post_init__(self) -> None:
        try:
            if canonical("localizers", self.size_of) == self.name:
                raise ValueError(f"size_of: {self.size_of!r}; a region cannot take its size from itself; name another")
        except ConfigError as error:
            raise ValueError(f"size_of: {error}") from None

    @property
    def takes_size_of(self) -> str:
        """The localizer whose region gives the size."""
        return self.size_of

    def region(self, engine: Engine, scopes: Scopes) -> Region:
        """Return a random region of the same size as the region `scopes.size`.

        Raises:
            ConfigError: `scopes.size` is None, or no set of units has exactly its number of parameters (it was edited),
                or its two terms have different masks.
        """
        size, seed = scopes.size, scopes.seed
        if size is None:
            raise ConfigError(
                "localizer random: no region whose size it could take; give one, such as that of `gradient`"
            )
        if size.splits_terms:
            raise ConfigError(
                f"localizer random: {size.localizer} has a mask for each term; use one that has a single mask"
            )
        unit = str(size.settings.get("unit", "module"))
        parameters = matrices(engine.model)
        if unit in WHOLE:
            sizes = unit_sizes(parameters, unit, {})
            drawn = draw_subset(sizes, size.parameters, random.Random(seed))
            chosen = {key: torch.full((1, 1), key in drawn) for key in sizes}
        else:
            chosen = _draw_parts(parameters, unit, input_dims(engine.model), size, seed)
        made = {"unit": unit, "seed": seed, "size_of": size.localizer}
        return build_region(self.name, made, parameters, chosen, unit, {}, size.seconds)


def _draw_parts(
    parameters: Mapping[str, Tensor], unit: str, inputs: Mapping[str, int], size: Region, seed: int
) -> dict[str, Tensor]:
    """Draw rows, columns or weights, as many of each size as the region `size` has."""
    sizes = unit_sizes(parameters, unit, inputs)
    shapes = {name: unit_means({name: p.detach()}, unit, inputs)[name].shape for name, p in parameters.items()}
    generator = torch.Generator().manual_seed(seed)
    chosen: dict[str, Tensor] = {}
    selected = {e.name: (e.selected or 0) if e.chosen else 0 for e in size.entries}
    for length in sorted(set(sizes.values())):
        names = [name for name in parameters if sizes[name] == length]
        counts = [shapes[name].numel() for name in names]
        wanted = sum(selected.get(name, 0) for name in names) // length
        flat = torch.zeros(sum(counts), dtype=torch.bool)
        flat[torch.randperm(len(flat), generator=generator)[:wanted]] = True
        for name, part in zip(names, flat.split(counts), strict=True):
            chosen[name] = part.reshape(shapes[name]).to(parameters[name].device)
    return chosen


def draw_subset(sizes: Mapping[str, int], total: int, rng: random.Random) -> frozenset[str]:
    """Draw uniformly from all subsets of `sizes` that sum to `total` exactly.

    Units of equal size are interchangeable. So first draw how many of each size to take, weighted by the number of
    subsets with those counts, and then which ones.

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
