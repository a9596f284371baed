"""Base classes of localizers, and the selection of units by score."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Interval
from torch import Tensor, nn

from scopewise import registry
from scopewise.data.prompt import Encoded
from scopewise.errors import ConfigError
from scopewise.models.engine import Engine
from scopewise.models.matrices import input_dims, matrices
from scopewise.region import Entry, Mask, Region, module_of
from scopewise.settings import knobs, make

WHOLE = ("module", "matrix")
"""Units that are whole matrices; the others (row, column, weight) are parts of one."""


@dataclass(frozen=True)
class Scopes:
    """Input of a localizer: tokenised train rows of both scopes.

    Attributes:
        forget: Rows of the forget scope.
        retain: Rows of the retain scope.
        seed: Random seed.
        size: The region whose size a random control takes, or None.
    """

    forget: Sequence[Encoded]
    retain: Sequence[Encoded]
    seed: int = 0
    size: Region | None = None


@dataclass(frozen=True, kw_only=True)
class Localizer:
    """Base of the localizers: settings as fields, and `region`."""

    name: ClassVar[str]

    @property
    def takes_size_of(self) -> str | None:
        """The localizer whose region gives the size of this one, a random control; None otherwise."""
        return None

    def check(self, model: nn.Module) -> None:
        """Raise ConfigError if the settings match nothing in a model; weights are not read."""
        return

    def unit_scores(self, engine: Engine, scopes: Scopes) -> Mapping[str, Tensor] | None:
        """Return a score for each unit as unit tensors, higher = chosen first; None if units are not ranked."""
        return None

    def region(self, engine: Engine, scopes: Scopes) -> Region:
        """Return the region of a model.

        Args:
            engine: Of the model to unlearn from, with the adapter that will be trained, if any. It is not changed.
            scopes: The rows of both scopes.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class UnitLocalizer(Localizer):
    """Base of localizers that choose units by score.

    Attributes:
        unit: What is chosen as a whole. Default: as for `gradient`.
        threshold: How much is chosen. Default: as for `gradient`.
        sigma: Minimum score, or its quantile, unless `threshold` is `fraction`. Default: as for `gradient`.
        fraction: Share (0-1) of the localizable parameters, if `threshold` is `fraction`. Default: ours.
    """

    unit: Literal["module", "matrix", "row", "column", "weight"] = "module"
    threshold: Literal["quantile", "absolute", "fraction"] = "quantile"
    sigma: float = 0.25
    fraction: Annotated[float, Interval(gt=0, le=1)] = 0.5

    def __post_init__(self) -> None:
        self._check_quantile("sigma", self.sigma)

    def _check_quantile(self, name: str, value: float) -> None:
        if self.threshold == "quantile" and not 0 <= value <= 1:
            raise ValueError(f"{name}: {value}; a quantile is from 0 to 1; threshold=absolute takes any")

    def check(self, model: nn.Module) -> None:
        """Raise ConfigError if `fraction` is less than the smallest unit."""
        if self.threshold != "fraction":
            return
        parameters = matrices(model)
        smallest = min(unit_sizes(parameters, self.unit, input_dims(model)).values())
        total = sum(parameter.numel() for parameter in parameters.values())
        if smallest > self.fraction * total:
            raise ConfigError(
                f"{ARGUMENTS}.fraction: {self.fraction:g} of {total} parameters; a {self.unit} has {smallest} "
                "or more; raise it, or take a smaller unit"
            )


@dataclass(frozen=True, kw_only=True)
class ScoreLocalizer(UnitLocalizer):
    """Base of localizers that score every weight; units are chosen by the mean score of their weights."""

    def scores(self, engine: Engine, scopes: Scopes) -> Mapping[str, Tensor]:
        """Return a float32 score for each entry of each of `matrices(engine.model)`, higher = chosen first."""
        raise NotImplementedError

    def unit_scores(self, engine: Engine, scopes: Scopes) -> Mapping[str, Tensor]:
        """Return the mean score of each unit."""
        return unit_means(self.scores(engine, scopes), self.unit, input_dims(engine.model))

    def region(self, engine: Engine, scopes: Scopes) -> Region:
        """Return the units with the highest scores, by `unit` and `threshold`."""
        start = time.perf_counter()
        scores = self.scores(engine, scopes)
        inputs = input_dims(engine.model)
        sizes = unit_sizes(matrices(engine.model), self.unit, inputs)
        chosen = choose(unit_means(scores, self.unit, inputs), sizes, self)
        means = {name: float(score.mean()) for name, score in scores.items()}
        return build_region(
            self.name,
            {**asdict(self), "seed": scopes.seed},
            matrices(engine.model),
            chosen,
            self.unit,
            {name: {"score": mean} for name, mean in means.items()},
            time.perf_counter() - start,
        )


ARGUMENTS = "localize.localizer_args"


def make_localizer(name: str, **arguments: Any) -> Localizer:
    """Build a localizer by name.

    Raises:
        ConfigError: unknown localizer or setting (with the nearest name), or a value that does not fit.
    """
    made: Localizer = make("localizers", name, ARGUMENTS, arguments)
    return made


def localizer_of(name: str, arguments: Mapping[str, Any]) -> Localizer:
    """Build a localizer with its part of a run's arguments; the others are for other localizers of the run."""
    own = knobs(registry.lookup("localizers", name))
    return make_localizer(name, **{key: value for key, value in arguments.items() if key in own})


def check_arguments(names: Iterable[str], arguments: Mapping[str, Any]) -> None:
    """Raise ConfigError for an argument that no localizer of a run has, including those that give a size.

    Args:
        names: The localizers.
        arguments: The run's `localize.localizer_args`.
    """
    used: dict[str, tuple[str, ...]] = {}
    for name in names:
        chain: str | None = name
        while chain is not None and chain not in used:
            made = localizer_of(chain, arguments)
            used[chain] = knobs(type(made))
            chain = made.takes_size_of
    known = dict.fromkeys(key for own in used.values() for key in own)
    for key in arguments:
        if key not in known:
            advice = registry.allowed(key, known) if known else "it takes none; remove it"
            raise ConfigError(f"{ARGUMENTS}: unknown {key!r}; of {', '.join(used)} {advice}")


def localize_encoded(name: str, engine: Engine, scopes: Scopes, arguments: Mapping[str, Any] | None = None) -> Region:
    """Run a localizer by name; a random control without a given size runs its `takes_size_of` first."""
    localizer = localizer_of(name, arguments or {})
    if localizer.takes_size_of is not None and scopes.size is None:
        scopes = replace(scopes, size=localize_encoded(localizer.takes_size_of, engine, scopes, arguments))
    return localizer.region(engine, scopes)


# -- units: the parts of a matrix that are chosen as a whole ------------------------------------------------------
#
# A "unit tensor" has one value per unit of a matrix: [1, 1] for a whole matrix, [rows, 1], [1, columns], or the matrix's
# own shape. It broadcasts against the matrix. The key of a module's unit tensor [1, 1] is the module's name. A row
# computes one output and a column reads one input, however the matrix is stored: `inputs` gives the dimension of its
# inputs (see `input_dims`; default: the last). The experts of a layer are one matrix with an extra dimension.


def unit_sums(values: Mapping[str, Tensor], unit: str, inputs: Mapping[str, int]) -> dict[str, Tensor]:
    """Return the sum of a quantity over each unit's weights, as unit tensors per matrix or module."""
    if unit == "weight":
        return dict(values)
    if unit not in WHOLE:
        return {name: value.sum(_summed(name, unit, inputs), keepdim=True) for name, value in values.items()}
    sums: dict[str, Tensor] = {}
    for name, value in values.items():
        key = name if unit == "matrix" else module_of(name)
        total = value.sum().reshape(1, 1)
        sums[key] = sums[key] + total if key in sums else total
    return sums


def _summed(name: str, unit: str, inputs: Mapping[str, int]) -> int:
    """Return the dimension along which a row or column of a matrix runs: -1 or -2."""
    of_inputs = inputs.get(name, -1)
    return of_inputs if unit == "row" else -3 - of_inputs


def unit_sizes(parameters: Mapping[str, Tensor], unit: str, inputs: Mapping[str, int]) -> dict[str, int]:
    """Return the number of weights in each unit of a matrix (or in a module)."""
    if unit == "weight":
        return dict.fromkeys(parameters, 1)
    if unit not in WHOLE:
        return {name: p.shape[_summed(name, unit, inputs)] for name, p in parameters.items()}
    sizes: dict[str, int] = {}
    for name, parameter in parameters.items():
        key = name if unit == "matrix" else module_of(name)
        sizes[key] = sizes.get(key, 0) + parameter.numel()
    return sizes


def unit_means(values: Mapping[str, Tensor], unit: str, inputs: Mapping[str, int]) -> dict[str, Tensor]:
    """Return the mean of a quantity over each unit's weights."""
    sizes = unit_sizes(values, unit, inputs)
    return {key: total / sizes[key] for key, total in unit_sums(values, unit, inputs).items()}


def choose(scores: Mapping[str, Tensor], sizes: Mapping[str, int], how: UnitLocalizer) -> dict[str, Tensor]:
    """Choose units, as boolean unit tensors.

    Args:
        scores: One per unit.
        sizes: Weights per unit.
        how: By its `threshold`: `absolute` takes scores above sigma; `quantile` those above the sigma-quantile of all
            scores; `fraction` the highest ones that together have at most that share of the parameters. Ties are
            broken by the model's order.

    Raises:
        ConfigError: nothing is chosen; the message gives the range of the scores.
    """
    flat = {key: score.flatten() for key, score in scores.items()}
    if how.threshold == "absolute":
        chosen = {key: score > how.sigma for key, score in flat.items()}
    else:
        units = sum(len(score) for score in flat.values())
        if how.threshold == "quantile":
            count = units - math.floor(how.sigma * units)
        else:
            count = _count_within(flat, sizes, how.fraction)
        chosen = highest(flat, count)
    if not any(bool(mask.any()) for mask in chosen.values()):
        low, high = min(float(s.min()) for s in flat.values()), max(float(s.max()) for s in flat.values())
        raise ConfigError(
            f"{ARGUMENTS}: no unit is chosen; scores are {low:.3g} to {high:.3g}, a unit has {min(sizes.values())} weights or "
            "more; lower sigma, raise fraction, or take a smaller unit"
        )
    return {key: mask.reshape(scores[key].shape) for key, mask in chosen.items()}


def highest(scores: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Return masks of the `count` highest values; ties are broken by order. Exact, without sorting.

    A binary search over the bit patterns of floats, which have the order of the values once negative ones are flipped,
    finds the smallest chosen value. Each step only counts, so that all scores are never copied.
    """
    if count <= 0:
        return {key: torch.zeros_like(value, dtype=torch.bool) for key, value in scores.items()}
    low, high = -(2**31), 2**31 - 1  # at least `count` keys are >= low; fewer are > high
    while low < high:
        middle = (low + high + 1) // 2
        if sum(int((_ordered(value) >= middle).sum()) for value in scores.values()) >= count:
            low = middle
        else:
            high = middle - 1
    masks = {key: _ordered(value) > low for key, value in scores.items()}
    left = count - sum(int(mask.sum()) for mask in masks.values())
    for key, value in scores.items():
        ties = torch.nonzero(_ordered(value) == low).flatten()[:left]
        masks[key][ties] = True
        left -= len(ties)
    return masks


def _ordered(value: Tensor) -> Tensor:
    """Return int32 keys in the order of float32 values."""
    bits = value.float().contiguous().view(torch.int32)
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


def _count_within(scores: Mapping[str, Tensor], sizes: Mapping[str, int], fraction: float) -> int:
    """Return how many of the highest units together have at most `fraction` of all weights."""
    total = sum(len(score) * sizes[key] for key, score in scores.items())
    budget = math.floor(fraction * total)
    if len(set(sizes.values())) == 1:
        return budget // next(iter(sizes.values()))
    values = torch.cat([score.float().cpu() for score in scores.values()])
    weights = torch.cat([torch.full((len(score),), sizes[key]) for key, score in scores.items()])
    order = torch.sort(values, descending=True, stable=True).indices
    return int((weights[order].cumsum(0) <= budget).sum())


def build_region(
    localizer: str,
    settings: Mapping[str, Any],
    parameters: Mapping[str, Tensor],
    chosen: Mapping[str, Tensor],
    unit: str,
    measures: Mapping[str, Mapping[str, float | None]],
    seconds: float = 0.0,
) -> Region:
    """Build a region from chosen units.

    Args:
        localizer: Its name.
        settings: Its settings.
        parameters: The matrices to choose from.
        chosen: Boolean unit tensors, by matrix or by module.
        unit: The kind of unit.
        measures: Values of `Entry` for each matrix, such as `score` or `cosine`.
        seconds: Time of localizing.
    """
    entries, masks = [], {}
    for name, parameter in parameters.items():
        mask = chosen[module_of(name) if unit == "module" else name]
        selected = None
        if unit not in WHOLE:
            whole = mask.expand(parameter.shape)
            selected = int(whole.sum())
            if 0 < selected < parameter.numel():
                masks[name] = Mask.pack(whole.cpu().numpy())
        entries.append(
            Entry(name, parameter.numel(), bool(mask.any()), module_of(name), selected, **measures.get(name, {}))
        )
    return Region(localizer, settings, tuple(entries), seconds=seconds, masks=masks)
