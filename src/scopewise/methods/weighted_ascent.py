"""Gradient ascent with a weight for each token, by its probability: presets of one loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, LossInput, Method
from scopewise.ops import Reduction


@dataclass(frozen=True, kw_only=True)
class WeightedAscent(Method):
    """Base of weighted gradient ascent; its presets differ in the weight of a token."""

    reduction: ClassVar[Reduction] = Reduction.TOKEN_MEAN
    stops_gradient: ClassVar[bool] = True
    needs: ClassVar[frozenset[LossInput]] = frozenset({"nll"})

    def token_weight(self, nll: Float[Tensor, "tokens"]) -> Float[Tensor, "tokens"]:
        """Return the weight of each token from its negative log-likelihood in nats."""
        raise NotImplementedError

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return each answer's weighted log-likelihood, in nats per token."""
        nll = answers.token_nll()
        return -answers.mean(self.token_weight(nll.detach()) * nll)


@dataclass(frozen=True, kw_only=True)
class WGA(WeightedAscent):
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

    searched: ClassVar[Mapping[str, tuple[float, float]]] = {"beta": (0.125, 8.0)}

    def token_weight(self, nll: Float[Tensor, "tokens"]) -> Float[Tensor, "tokens"]:
        """Return p^β."""
        return (-self.beta * nll).exp()


@dataclass(frozen=True, kw_only=True)
class SatImp(WeightedAscent):
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

    searched: ClassVar[Mapping[str, tuple[float, float]]] = {"beta1": (0.6, 40.0), "beta2": (0.0125, 0.8)}

    def token_weight(self, nll: Float[Tensor, "tokens"]) -> Float[Tensor, "tokens"]:
        """Return p^β1 (1 - p)^β2."""
        p = (-nll).exp()
        return p**self.beta1 * (1 - p).clamp(min=0) ** self.beta2
