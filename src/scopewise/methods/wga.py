"""Weighted gradient ascent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, LossInput, Method
from scopewise.ops import Reduction


@dataclass(frozen=True, kw_only=True)
class WGA(Method):
    """Weighted gradient ascent: a token's weight is a power of its probability, so unlikely tokens hardly count.

        L = -mean_t p_t^β NLL_t + CE(retain),   p_t = P(y_t | x, y_<t) without gradient

    Choose it as the simplest form of ascent that does not push unlikely tokens further down. The main knob is `beta`: with
    a higher value, ascent on a token fades at a higher probability; 0 is plain ascent.

    Source: Wang et al., arXiv:2502.19301. Reference code: tmlr-group/G-effect ef368ee, and locuslab/open-unlearning
    d3d7cf9 `compute_wga_loss` (equal), whose weights are 1 too.

    Deviations: none.

    Attributes:
        beta: β, the exponent: with a higher value, ascent on a token fades at a higher probability; 0 is plain ascent.
            Default: OpenUnlearning's `WGA.yaml`.
        retain: Default: OpenUnlearning's `WGA.yaml`.
    """

    beta: float = 1.0
    retain: str = "ce"

    reduction: ClassVar[Reduction] = Reduction.TOKEN_MEAN
    stops_gradient: ClassVar[bool] = True
    needs: ClassVar[frozenset[LossInput]] = frozenset({"nll"})
    searched: ClassVar[Mapping[str, tuple[float, float]]] = {"beta": (0.125, 8.0)}

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return each answer's weighted log-likelihood, in nats per token."""
        nll = answers.token_nll()
        return -answers.mean((-self.beta * nll.detach()).exp() * nll)
