"""Localization by gradients: Eq. 8-9 of the paper."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt
from torch import Tensor

from scopewise.data.prompt import Encoded
from scopewise.errors import ConfigError
from scopewise.localizers.base import (
    ARGUMENTS,
    WHOLE,
    Scopes,
    UnitLocalizer,
    build_region,
    choose,
    unit_sizes,
    unit_sums,
)
from scopewise.models.engine import Engine
from scopewise.models.gradients import Gradients
from scopewise.models.matrices import gradient_groups, input_dims, matrices
from scopewise.region import Region, module_of


@dataclass(frozen=True, kw_only=True)
class Gradient(UnitLocalizer):
    """Modules whose forget gradient is large and points away from the retain gradient (MemFlex).

        θ_loc = { θ_i : cos(G_UL,i , G_RT,i) < µ  and  mean |G_UL,i| > σ }

    G_UL and G_RT are the gradients of the loss on randomly relabelled answers of the forget and the retain train rows,
    averaged over N repeats.

    Unit: the paper decides per module (LoRA's A and B together, or one weight matrix), the code per matrix. In a fresh
    adapter B is zero, so A has no gradient, and A alone would never be chosen; deciding per module, A is chosen with
    its B. The magnitude of a module is the mean over those of its matrices that have a gradient. Rows, columns and
    single weights work in the same way (the cosine of a single weight is 1 or -1). A unit with a zero gradient has no
    cosine and is never chosen.

    Threshold: `absolute` takes µ and σ as given; such values do not transfer between models. The paper's µ / σ: LLaMA-2
    copyright .92 / 6e-4, privacy .96 / 4e-4; Qwen-1.5 copyright .94 / 7e-4, privacy .94 / 2e-4. `quantile` takes the
    µ-quantile of the cosines and the σ-quantile of the magnitudes. With the defaults each condition holds for three
    quarters of the modules, so both hold for at least half of them (if there are no ties). `fraction` takes the units
    with the highest mean |G_UL,i| · (1 - cos_i) / 2; this score is ours, and both conditions raise it. If no unit
    satisfies both conditions, the run stops and gives the observed ranges.

    Corruption: `labels` replaces every label and leaves the input unchanged (the paper's text). The N repeats then need
    only one forward and one backward pass, which is exact because the loss is linear in the labels. `inputs` replaces
    half as many tokens as the answer has, at positions drawn with replacement, in inputs and labels alike (the code),
    and needs N passes.

    Choose it to find out where forget and retain gradients disagree. With a higher `mu` or a lower `sigma` the region
    is larger, but its modules belong less clearly to the forget scope.

    Source: arXiv:2407.01920, Eq. 8-9 (G_RT in the sum of the magnitude is a typo for G_UL). Reference code:
    zjunlp/KnowUnDo 92aea2b `pretrain/localization.py`, `pretrain/data_module.py`.

    Deviations: train rows only (the code also reads val rows), N = 5 as in the paper (code: 3), no end-of-sequence
    label, all rows of both scopes.

    Attributes:
        repeats: N. Default: the paper; the code uses 3.
        threshold: How µ and σ are interpreted. Default: ours, since absolute thresholds do not transfer between models.
        mu: µ. Default: ours; as a quantile, three quarters of the modules satisfy its condition.
        sigma: σ. Default: ours; as a quantile, three quarters of the modules satisfy its condition.
        fraction: Share (0-1) of the localizable parameters, if `threshold` is `fraction`. Default: ours.
        unit: What is chosen as a whole. Default: the paper, whose θ_i is a module; `matrix` is the code.
        corrupt: What is randomised: `labels` or `inputs`. Default: the paper, which replaces labels and leaves the
            input; `inputs` is the code.
        gradient_gigabytes: Memory limit for the gradients. If those of all matrices need more, the rows are passed
            several times, each time for some of the modules. Default: half of the accelerator's free memory.
    """

    repeats: Annotated[int, Ge(1)] = 5
    mu: float = 0.75
    corrupt: Literal["labels", "inputs"] = "labels"
    gradient_gigabytes: Annotated[float | None, Gt(0)] = None

    name: ClassVar[str] = "gradient"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_quantile("mu", self.mu)

    def region(self, engine: Engine, scopes: Scopes) -> Region:
        """Return the region by Eq. 9.

        Raises:
            ConfigError: no module satisfies both conditions; the message gives the observed ranges.
        """
        start = time.perf_counter()
        unit = self.unit
        shown_unit = unit if unit in WHOLE else "matrix"
        (cosines, magnitude, _), shown = self._measured(engine, scopes, (unit, shown_unit))
        used: dict[str, float] = {}
        if self.threshold == "fraction":
            sizes = unit_sizes(matrices(engine.model), unit, input_dims(engine.model))
            chosen = choose(_score(cosines, magnitude), sizes, self)
        else:
            mu, sigma = self._thresholds(cosines, magnitude)
            used = {"mu_used": mu, "sigma_used": sigma}
            chosen = {u: (cosines[u] < mu) & (magnitude[u] > sigma) for u in cosines}  # no cosine: NaN, never less
            if not any(bool(mask.any()) for mask in chosen.values()):
                raise ConfigError(_nothing_chosen(cosines, magnitude, mu, sigma))
        measures = {}
        for name in matrices(engine.model):
            at = [float(values[module_of(name) if unit == "module" else name]) for values in shown]
            measures[name] = {
                "cosine": at[0] if at[0] == at[0] else None,
                "magnitude": at[1],
                "magnitude_retain": at[2],
            }
        made = {**asdict(self), **used, "seed": scopes.seed}
        return build_region(
            self.name, made, matrices(engine.model), chosen, unit, measures, seconds=time.perf_counter() - start
        )

    def unit_scores(self, engine: Engine, scopes: Scopes) -> Mapping[str, Tensor]:
        """Return mean|G_UL| · (1 - cos) / 2 of each unit."""
        ((cosines, magnitude, _),) = self._measured(engine, scopes, (self.unit,))
        return _score(cosines, magnitude)

    def _measured(self, engine: Engine, scopes: Scopes, units: Sequence[str]) -> list[tuple[dict[str, Tensor], ...]]:
        """Return `_measures` for each kind of unit, computing only as many gradients at once as memory allows."""
        found: list[tuple[dict[str, Tensor], ...]] = [({}, {}, {}) for _ in units]
        groups, inputs = gradient_groups(engine.model, self.gradient_gigabytes), input_dims(engine.model)
        for number, group in enumerate(groups):
            part = f", part {number + 1} of {len(groups)}" if len(groups) > 1 else ""
            unlearn = self.gradients(engine, scopes.forget, scopes.seed, f"forget{part}", group)
            keep = self.gradients(engine, scopes.retain, scopes.seed + 1, f"retain{part}", group)
            for whole, unit in zip(found, units, strict=True):
                for values, more in zip(whole, _measures(unlearn, keep, unit, inputs), strict=True):
                    values.update(more)
        return found

    def gradients(
        self,
        engine: Engine,
        items: Sequence[Encoded],
        seed: int,
        what: str = "rows",
        only: Collection[str] | None = None,
    ) -> Gradients:
        """Return the gradient of the relabelled loss on each matrix, averaged over rows and repeats."""
        repeats, corrupt = self.repeats, self.corrupt
        return engine.mean_gradients(items, what, repeats=repeats, corrupt=corrupt, seed=seed, only=only)

    def _thresholds(self, cosines: Mapping[str, Tensor], magnitude: Mapping[str, Tensor]) -> tuple[float, float]:
        mu, sigma = self.mu, self.sigma
        if self.threshold == "absolute":
            return mu, sigma
        known = _flat(cosines)
        known = known[~np.isnan(known)]
        if not len(known):
            raise ConfigError(
                "localize: every gradient is zero; the loss must depend on these matrices; check the model and its rows"
            )
        # The next float up or down, so that a unit exactly at the quantile satisfies the strict inequality.
        return (
            float(np.nextafter(np.quantile(known, mu), np.inf)),
            float(np.nextafter(np.quantile(_flat(magnitude), sigma), -np.inf)),
        )


def _measures(
    unlearn: Gradients, keep: Gradients, unit: str, inputs: Mapping[str, int]
) -> tuple[dict[str, Tensor], ...]:
    """Return cosine (NaN where a gradient is zero), mean |G_UL| and mean |G_RT| of each unit, in float64."""
    a = {name: gradient.double() for name, gradient in unlearn.items()}
    b = {name: keep[name].double() for name in unlearn}
    dot = unit_sums({name: a[name] * b[name] for name in a}, unit, inputs)
    norm_a = unit_sums({name: value.square() for name, value in a.items()}, unit, inputs)
    norm_b = unit_sums({name: value.square() for name, value in b.items()}, unit, inputs)
    cosines = {u: dot[u] / (norm_a[u].sqrt() * norm_b[u].sqrt()) for u in dot}
    return cosines, _mean_abs(a, unit, inputs), _mean_abs(b, unit, inputs)


def _score(cosines: Mapping[str, Tensor], magnitude: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {unit: magnitude[unit] * (1 - cosines[unit].nan_to_num(1.0)) / 2 for unit in cosines}


def _mean_abs(gradients: Mapping[str, Tensor], unit: str, inputs: Mapping[str, int]) -> dict[str, Tensor]:
    """Return mean |G| of each unit; for a module, over the matrices that have a gradient.

    The A of a fresh adapter has gradient zero, which would halve the module's mean.
    """
    total = unit_sums({name: gradient.abs() for name, gradient in gradients.items()}, unit, inputs)
    if unit != "module":
        sizes = unit_sizes(gradients, unit, inputs)
        return {u: total[u] / sizes[u] for u in total}
    counted = {name: torch.full_like(g, float(bool(g.any()))) for name, g in gradients.items()}
    weights = unit_sums(counted, unit, inputs)
    return {u: total[u] / weights[u].clamp(min=1) for u in total}


def _nothing_chosen(cosines: Mapping[str, Tensor], magnitude: Mapping[str, Tensor], mu: float, sigma: float) -> str:
    known, sizes = _flat(cosines), _flat(magnitude)
    known = known[~np.isnan(known)]
    low, high = (known.min(), known.max()) if len(known) else (0.0, 0.0)
    return (
        f"{ARGUMENTS}: no module has cosine < {mu:.3g} and magnitude > {sigma:.3g}; cosines are {low:.3g} to {high:.3g}, "
        f"magnitudes {sizes.min():.3g} to {sizes.max():.3g}; raise mu, lower sigma, or use "
        "threshold=quantile"
    )


def _flat(values: Mapping[str, Tensor]) -> np.ndarray:
    return torch.cat([value.flatten() for value in values.values()]).cpu().numpy()
