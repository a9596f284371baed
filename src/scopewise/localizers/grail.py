"""GRAIL's masks."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scopewise.data.prompt import Encoded
from scopewise.localizers.base import Localizer
from scopewise.models.gradients import Gradients, matrices, mean_gradients
from scopewise.region import Entry, Mask, Region, module_of


class Grail(Localizer):
    """Everything but the weights both scopes need, for the forget term; everything but retention's core, for the retain term.

    Formula: with z the gradient on randomly relabelled answers, standardised within its matrix, and Top_p the entries whose |z|
    is among the highest share p of their matrix: the forget term may not change Top_p(forget) ∩ Top_p(retain), the retain
    term not Top_q(retain). A matrix whose gradient does not vary has no top.

    Source: Kim et al., arXiv:2504.12681. Reference code: piso7/GRAIL 5cd74dd `grail_parameter_wise_localization.py`
    (`zscore`), p = .1 and q = .2 in its scripts. Deviations: one pair of scopes (there unions and intersections over two
    domains); every label replaced as in MemFlex's paper (there half of them; `corrupt=inputs`); train rows only.
    `unit` and `threshold` have no meaning for it: it decides by weight, `overlap_fraction` is p, `core_fraction` q.
    """

    name = "grail"

    def region(
        self,
        model: nn.Module,
        forget: Sequence[Encoded],
        retain: Sequence[Encoded],
        seed: int,
        size: Region | None = None,
    ) -> Region:
        """Return the region with a mask for each term of the loss."""
        start = time.perf_counter()
        settings = self.settings

        def gradients(items: Sequence[Encoded], what: str, seed: int) -> Gradients:
            return mean_gradients(
                model, items, settings.max_tokens, what, repeats=settings.repeats, corrupt=settings.corrupt, seed=seed
            )

        unlearn, keep = gradients(forget, "forget", seed), gradients(retain, "retain", seed + 1)
        entries, masks = [], {}
        for name, parameter in matrices(model).items():
            shared = _top(unlearn[name], settings.overlap_fraction) & _top(keep[name], settings.overlap_fraction)
            core = _top(keep[name], settings.core_fraction)
            masks[f"forget:{name}"] = Mask.pack((~shared).cpu().numpy())
            masks[f"retain:{name}"] = Mask.pack((~core).cpu().numpy())
            selected = parameter.numel() - int((shared & core).sum())
            entries.append(Entry(name, parameter.numel(), selected > 0, module_of(name), selected))
        made = {**settings.model_dump(), "seed": seed}
        return Region(self.name, made, tuple(entries), seconds=time.perf_counter() - start, masks=masks)


def _top(gradient: Tensor, share: float) -> Tensor:
    """Return which entries have a |z| at or above its (1 - share) quantile; none where the gradient does not vary."""
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
