"""GA + descent, in-distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, LossInput, Method


@dataclass(frozen=True, kw_only=True)
class GADescent(Method):
    """Gradient ascent on the forget answers, gradient descent on retain answers of the same instances.

        L = -forget_weight · CE(forget) + retain_weight · CE(retain)

    Choose it first if you have retain rows of the same instances. The main knob is `retain_weight`: higher improves
    Retention Success, lower improves Unlearn Success.

    Source: Yao et al., arXiv:2310.10683 and arXiv:2402.15159; KnowUnDo table 2, GA + Descent, in-distribution, whose
    loss has no weights. Reference code: zjunlp/KnowUnDo 92aea2b `methods/ascent_plus_descent.py`.

    Deviations: the code divides both terms by the number of all rows, so at a balanced batch its gradient is half of
    ours. Adam is invariant to that factor.

    Attributes:
        retain: Default: KnowUnDo's in-distribution descent.
    """

    retain: str = "ce"

    needs: ClassVar[frozenset[LossInput]] = frozenset({"nll"})

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return the mean log-likelihood of each forget answer in nats per token."""
        return -answers.nll()
