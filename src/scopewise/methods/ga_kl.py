"""GA + KL, in-distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, LossInput, Method


@dataclass(frozen=True, kw_only=True)
class GAKL(Method):
    """Gradient ascent on the forget answers, KL to the model before unlearning on the retain answers.

        L = -forget_weight · CE(forget) + retain_weight · KL(reference ‖ model)(retain)

    Choose it if the model should keep its answers to retain questions, right or wrong, instead of being trained on them
    again. The main knob is `retain_weight`: higher stays closer to the reference, lower forgets more. Each step needs a
    second forward pass over the retain rows.

    Source: Yao et al., arXiv:2402.15159; KnowUnDo table 2, GA + KL, in-distribution, whose loss has no weights.
    Reference code: zjunlp/KnowUnDo 92aea2b `methods/ascent_plus_KLdivergence.py`.

    Deviations: the code minimises the cross-entropy to the reference, which differs from KL by a constant; it averages
    over prompt and padding too, here over answer tokens only; it adds 1e-12 inside the logarithm.

    Attributes:
        retain: Default: KnowUnDo's in-distribution KL.
    """

    retain: str = "kl"

    needs: ClassVar[frozenset[LossInput]] = frozenset({"nll"})

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return the mean log-likelihood of each forget answer in nats per token."""
        return -answers.nll()
