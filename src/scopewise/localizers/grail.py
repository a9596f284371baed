"""GRAIL's masks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from scopewise.data.prompt import Encoded
from scopewise.localizers.base import Localizer, Scopes
from scopewise.models.engine import Engine
from scopewise.models.gradients import Gradients
from scopewise.models.matrices import matrices
from scopewise.region import Entry, Mask, Region, module_of


@dataclass(frozen=True, kw_only=True)
class Grail(Localizer):
    """Separate masks for the two terms: forget skips weights important to both scopes, retain skips its own core.

        the forget term may not change Top_p(G_UL) ∩ Top_p(G_RT); the retain term may not change Top_q(G_RT)

    G_UL and G_RT are the gradients on randomly relabelled answers of the two scopes. z is the gradient standardised
    within its matrix, and Top_p are the weights whose |z| is in the highest share p of their matrix. A matrix whose
    gradient is constant has no top. The unit is a single weight.

    Choose it with the method `grail`, or with any other method that has a retain term. The gradients of the two terms
    are then computed one after the other. The section of the method `grail` explains the two fractions.

    Source: Kim et al., arXiv:2504.12681. Reference code: piso7/GRAIL 5cd74dd `grail_parameter_wise_localization.py`
    (`zscore`).

    Deviations: one pair of scopes (there unions and intersections over two domains); every label is replaced, as in
    MemFlex's paper (there half of them: `corrupt: inputs`); train rows only.

    Attributes:
        overlap_fraction: p. Default: the code's scripts.
        core_fraction: q. Default: the code's scripts.
        repeats: Number of random relabellings that are averaged. Default: as for `gradient`.
        corrupt: What is randomised, as for `gradient`. Default: as for `gradient`.
    """

    overlap_fraction: Annotated[float, Interval(gt=0, lt=1)] = 0.1
    core_fraction: Annotated[float, Interval(gt=0, lt=1)] = 0.2
    repeats: Annotated[int, Ge(1)] = 5
    corrupt: Literal["labels", "inputs"] = "labels"

    name: ClassVar[str] = "grail"

    def region(self, engine: Engine, scopes: Scopes) -> Region:
        """Return the region with a mask for each term of the loss."""
        start = time.perf_counter()

        def gradients(items: Sequence[Encoded], what: str, seed: int) -> Gradients:
            return engine.mean_gradients(items, what, repeats=self.repeats, corrupt=self.corrupt, seed=seed)

        unlearn = gradients(scopes.forget, "forget", scopes.seed)
        keep = gradients(scopes.retain, "retain", scopes.seed + 1)
        entries, masks = [], {}
        for name, parameter in matrices(engine.model).items():
            shared = _top(unlearn[name], self.overlap_fraction) & _top(keep[name], self.overlap_fraction)
            core = _top(keep[name], self.core_fraction)
            masks[f"forget:{name}"] = Mask.pack((~shared).cpu().numpy())
            masks[f"retain:{name}"] = Mask.pack((~core).cpu().numpy())
            selected = parameter.numel() - int((shared & core).sum())
            entries.append(Entry(name, parameter.numel(), selected > 0, module_of(name), selected))
        made = {**asdict(self), "seed": scopes.seed}
        return Region(self.name, made, tuple(entries), seconds=time.perf_counter() - start, masks=masks)


def _top(gradient: Tensor, share: float) -> Tensor:
    """Return which entries have |z| at or above its (1 - share) quantile; none if the gradient is constant."""
    spread = gradient.std()
    if not bool(spread > 1e-12):
        return torch.zeros_like(gradient, dtype=torch.bool)
    z = ((gradient - gradient.mean()) / spread).abs().flatten()
    # numpy's linear interpolation, as torch.quantile refuses large tensors.
    place = (1 - share) * (len(z) - 1)
    low = int(place)
    ordered = z.sort().values
    cut = torch.lerp(ordered[low], ordered[min(low + 1, len(z) - 1)], place - low)
    return (z >= cut).reshape(gradient.shape)
