"""Representation misdirection for unlearning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, LossInput, Method, seeded
from scopewise.ops import squared_distance


@dataclass(frozen=True, kw_only=True)
class RMU(Method):
    """Steer the states of one layer at the forget answers to a fixed random direction; hold those of the retain answers.

        L = mean_t ‖h_l(y_t) - c u‖² / d + retain_weight · mean_t ‖h_l(y_t) - h_l,ref(y_t)‖² / d

    The second mean is over retain answers; u is a random unit vector with positive entries, h_l the residual stream
    after decoder block l, d its width. Nothing above block l is computed or moved. The matrices its authors train are
    the `down_proj` of blocks l-2 to l: the localizer `named`, whose section has the pattern.

    Choose it for knowledge that must fail in any wording; it is cheap, since nothing above the layer is computed. Its
    main knob, `steering`, trades strength against damage; `layer_fraction` says how early meaning is destroyed.

    Source: Li et al., arXiv:2403.03218, section 4. Reference code: the authors' `rmu/unlearn.py`, and
    locuslab/open-unlearning d3d7cf9 `rmu.py`.

    Deviations: answers only, as open-unlearning (the authors: every position, padding too). open-unlearning's value is
    mean(sum) · mean(1/length) for rows of different length, by a broadcast; here each row is a mean of its own. The
    retain term `hidden` (there EMBED_DIFF) likewise. Which matrices move is the region's business.

    Attributes:
        steering: c; it has to exceed the norm of the states to steer them. Default: the paper, for Zephyr-7B.
        layer_fraction: l as a share (0-1) of the depth. Default: the paper's layer 7 of the 32 of Zephyr-7B.
        retain_weight: Default: the paper, for Zephyr-7B.
        retain: Default: the paper.
    """

    steering: float = 6.5
    layer_fraction: float = 0.22
    retain_weight: float = 1200.0
    retain: str = "hidden"

    needs: ClassVar[frozenset[LossInput]] = frozenset({"hidden"})

    def hidden_layer(self, layers: int) -> int | None:
        """Return block l."""
        return round(self.layer_fraction * (layers - 1))

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return each answer's mean squared distance to c u, per dimension."""
        assert answers.hidden is not None
        # The direction is part of the method: the same in every step, run and process, whatever else was drawn.
        direction = torch.rand(answers.hidden.shape[-1], generator=seeded(0), dtype=torch.float64)
        target = (self.steering * direction / direction.norm()).to(answers.hidden)
        return answers.mean(squared_distance(answers.hidden, target.unsqueeze(0)))
