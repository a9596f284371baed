"""GA + KL, out-of-distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, LossInput, Method


@dataclass(frozen=True, kw_only=True)
class GAKLGeneral(Method):
    """Gradient ascent on the forget answers, KL to the model before unlearning on general text.

        L = -forget_weight · CE(forget) + retain_weight · KL(reference ‖ model)(general text)

    Choose it if you have no retain rows and general behaviour should not change. The main knob is `retain_weight`:
    higher stays closer to the reference on general text, lower forgets more. It does not protect the retention scope.

    Source: Yao et al., arXiv:2402.15159; KnowUnDo table 2, GA + KL, out-of-distribution, whose loss has no weights.
    Reference code: zjunlp/KnowUnDo 92aea2b `methods/ascent_plus_KLdivergence.py`.

    Deviations: the code minimises the cross-entropy to the reference, which differs from KL by a constant; it averages
    over prompt and padding too, here over answer tokens only; it adds 1e-12 inside the logarithm.

    Attributes:
        retain: Default: KnowUnDo's KL.
        retain_data: Default: KnowUnDo's out-of-distribution.
    """

    retain: str = "kl"
    retain_data: Literal["retain", "general"] = "general"

    needs: ClassVar[frozenset[LossInput]] = frozenset({"nll"})

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return the mean log-likelihood of each forget answer in nats per token."""
        return -answers.nll()
