"""Representation misdirection for unlearning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, LossInput, Method, seeded
from scopewise.ops import squared_distance


@dataclass(frozen=True, kw_only=True)
class RMU(Method):
    """Push one layer's hidden states at forget answers to a random vector; keep those at retain answers.

        L = mean_t ‖h_l(y_t) - c u‖² / d + retain_weight · mean_t ‖h_l(y_t) - h_l,ref(y_t)‖² / d

    The second mean is over retain answers. u is a random unit vector with positive entries, h_l the residual stream
    after decoder block l, and d its width. Blocks above l are neither computed nor trained. The authors train the
    `down_proj` matrices of blocks l-2 to l; use the localizer `named` for that (its section has the pattern).

    Choose it for knowledge that must be unavailable in any wording. It is cheap, since blocks above l are not computed.
    The main knob is `steering`: higher forgets more and damages more. `layer_fraction` sets the depth of the layer.

    Source: Li et al., arXiv:2403.03218, section 4. Reference code: the authors' `rmu/unlearn.py`, and
    locuslab/open-unlearning d3d7cf9 `rmu.py`.

    Deviations: answer tokens only, as in open-unlearning (the authors: every position, padding too). For rows of
    different lengths, open-unlearning's value is mean(sum) · mean(1/length), because of a broadcast; here each row has
    its own mean. The same holds for the retain term `hidden` (there EMBED_DIFF). The region decides which matrices are
    trained.

    Attributes:
        steering: c; it must exceed the norm of the hidden states to have an effect. Default: the paper, for Zephyr-7B.
        layer_fraction: l as a share (0-1) of the depth. Default: the paper's layer 7 of the 32 of Zephyr-7B.
        retain_weight: Default: the paper, for Zephyr-7B.
        retain: Default: the paper.
    """

    steering: float = 6.5
    layer_fraction: float = 0.22
    retain_weight: float = 1200.0
    retain: str = "hidden"

    needs: ClassVar[frozenset[LossInput]] = frozenset({"hidden"})
    searched: ClassVar[Mapping[str, tuple[float, float]]] = {"steering": (0.8, 52.0)}

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
