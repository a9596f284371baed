"""Saturation and importance weighting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, LossInput, Method
from scopewise.ops import Reduction


@dataclass(frozen=True, kw_only=True)
class SatImp(Method):
    """Weighted gradient ascent with the largest weight on tokens that the model knows but is not certain of.

        L = -mean_t p_t^β1 (1 - p_t)^β2 NLL_t + 0.1 · CE(retain),   p_t = P(y_t | x, y_<t) without gradient

    The weight is largest at p = β1 / (β1 + β2).

    Choose it to forget tokens that are known but not certain. The main knob is `beta2`: a higher value gives less weight to
    tokens that the model is certain of, and so to memorised answers.

    Source: Yang et al., arXiv:2505.11953, section 5. Reference code: tmlr-group/SatImp 51314c0, and
    locuslab/open-unlearning d3d7cf9 `compute_satimp_loss` (equal as a function).

    Deviations: none in the loss. OpenUnlearning's configuration has β2 = 1, with which fully memorised tokens have almost
    no weight, and swaps the two weights.

    Attributes:
        beta1: β1: higher gives less weight to unlikely tokens. Default: the authors' README.
        beta2: β2: higher gives less weight to tokens that the model is certain of. Default: the authors' README.
        retain_weight: Default: the authors' README.
        retain: Default: the authors' loss.
    """

    beta1: float = 5.0
    beta2: float = 0.1
    retain_weight: float = 0.1
    retain: str = "ce"

    reduction: ClassVar[Reduction] = Reduction.TOKEN_MEAN
    stops_gradient: ClassVar[bool] = True
    needs: ClassVar[frozenset[LossInput]] = frozenset({"nll"})
    searched: ClassVar[Mapping[str, tuple[float, float]]] = {"beta1": (0.6, 40.0), "beta2": (0.0125, 0.8)}

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return each answer's weighted log-likelihood, in nats per token."""
        nll = answers.token_nll()
        p = (-nll.detach()).exp()
        return -answers.mean(p**self.beta1 * (1 - p).clamp(min=0) ** self.beta2 * nll)
