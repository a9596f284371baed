"""Simple negative preference optimization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from scopewise.methods.base import Answers, Method, Need


@dataclass(frozen=True, kw_only=True)
class SimNPO(Method):
    """NPO without a reference: the answer's mean log-likelihood stands in for the ratio.

    Formula: L = -(2/β) log σ(β (NLL(y|x)/|y| - δ)) + CE(retain), the first term weighted by `forget_weight`.

    Source: Fan et al., arXiv:2410.07163, Eq. 4. Reference code: OPTML-Group/Unlearn-Simple f1a355d (TOFU), and
    locuslab/open-unlearning d3d7cf9 `simnpo.py` (equal). The paper writes the margin outside β, the code inside, as here;
    they agree at 0, the only value that was used. β = 4.5 and forget weight 0.125 are those of TOFU forget10.

    Attributes:
        beta: β, per nat per token. At 4.5 an answer of 1 nat per token is left with 2 % of the first gradient.
        delta: Margin δ, in nats per token.
    """

    beta: float = 4.5
    delta: float = 0.0
    forget_weight: float = 0.125
    retain: str = "ce"

    needs: ClassVar[frozenset[Need]] = frozenset({"nll"})

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return each answer's SimNPO loss: (2/β) log 2 for a memorised answer, towards 0 as it is forgotten."""
        return -2 / self.beta * logsigmoid(self.beta * (answers.nll() - self.delta))
