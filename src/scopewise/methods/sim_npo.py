"""Simple negative preference optimization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from scopewise.methods.base import Answers, LossInput, Method


@dataclass(frozen=True, kw_only=True)
class SimNPO(Method):
    """NPO without a reference: the answer's mean log-likelihood stands in for the ratio.

        L = -forget_weight · (2/β) log σ(β (NLL(y|x) / |y| - δ)) + CE(retain)

    Choose it when lengths vary much, or no reference is wanted. Its main knob is `forget_weight`; `beta` trades depth
    against damage: a low one keeps pushing.

    Source: Fan et al., arXiv:2410.07163, Eq. 4. Reference code: OPTML-Group/Unlearn-Simple f1a355d (TOFU), and
    locuslab/open-unlearning d3d7cf9 `simnpo.py` (equal).

    Deviations: the margin stands inside β, as in the code; the paper has it outside (both are 0, the only value that
    was used). The retain CE is a mean over rows, as for `npo`.

    Attributes:
        beta: β, per nat per token. At 4.5 an answer of 1 nat per token is left with 2 % of the first gradient. Default:
            the authors' for TOFU forget10.
        delta: Margin δ, in nats per token. Default: the authors'.
        forget_weight: Default: the authors' for TOFU forget10.
        retain: Default: the authors'.
    """

    beta: float = 4.5
    delta: float = 0.0
    forget_weight: float = 0.125
    retain: str = "ce"

    needs: ClassVar[frozenset[LossInput]] = frozenset({"nll"})

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return each answer's SimNPO loss: (2/β) log 2 for a memorised answer, towards 0 as it is forgotten."""
        return -2 / self.beta * logsigmoid(self.beta * (answers.nll() - self.delta))
