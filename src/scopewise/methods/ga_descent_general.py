"""GA + descent, out-of-distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, LossInput, Method


@dataclass(frozen=True, kw_only=True)
class GADescentGeneral(Method):
    """Gradient ascent on the forget answers, gradient descent on general text.

        L = -forget_weight · CE(forget) + retain_weight · CE(general text)

    Choose it if you have no retain rows of the same instances. The main knob is `retain_weight`: higher keeps fluency
    on general text, lower forgets more. It does not protect the retention scope.

    Source: Yao et al., arXiv:2310.10683 and arXiv:2402.15159; KnowUnDo table 2, GA + Descent, out-of-distribution,
    whose loss has no weights. Reference code: zjunlp/KnowUnDo 92aea2b `methods/ascent_plus_descent.py`.

    Deviations: the code divides both terms by the number of all rows, so at a balanced batch its gradient is half of
    ours. Adam is invariant to that factor.

    Attributes:
        retain: Default: KnowUnDo's descent.
        retain_data: Default: KnowUnDo's out-of-distribution.
    """

    retain: str = "ce"
    retain_data: Literal["retain", "general"] = "general"

    needs: ClassVar[frozenset[LossInput]] = frozenset({"nll"})

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return the mean log-likelihood of each forget answer in nats per token."""
        return -answers.nll()
