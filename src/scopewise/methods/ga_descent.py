"""GA + descent, in-distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, LossInput, Method


@dataclass(frozen=True, kw_only=True)
class GADescent(Method):
    """Gradient ascent on the forget answers, descent on the retain answers of the same instances.

        L = -forget_weight · CE(forget) + retain_weight · CE(retain)

    Choose it as the first thing to try when there are retain rows of the same instances. Its main knob,
    `retain_weight`, trades Unlearn Success (lower it) against Retention Success (raise it).

    Source: Yao et al., arXiv:2310.10683 and arXiv:2402.15159; KnowUnDo table 2, GA + Descent, in-distribution, whose
    loss has no weights. Reference code: zjunlp/KnowUnDo 92aea2b `methods/ascent_plus_descent.py`.

    Deviations: the code divides both terms by the rows of both together, so that its gradient is half of this one at a
    balanced batch, which Adam does not see.

    Attributes:
        retain: Default: KnowUnDo's in-distribution descent.
    """

    retain: str = "ce"

    needs: ClassVar[frozenset[LossInput]] = frozenset({"nll"})

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return the mean log-likelihood of each forget answer in nats per token."""
        return -answers.nll()
