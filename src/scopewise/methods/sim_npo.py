"""Simple negative preference optimization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from scopewise.methods.base import Answers, LossInput, Method


@dataclass(frozen=True, kw_only=True)
class SimNPO(Method):
    """NPO without a reference model: it uses the answer's mean log-likelihood instead of the ratio.

        L = -forget_weight · (2/β) log σ(β (NLL(y|x) / |y| - δ)) + CE(retain)

    Choose it if answer lengths vary a lot, or to avoid a reference model. The main knob is `forget_weight`. A lower
    `beta` forgets more and damages more, because it keeps pushing for longer.

    Source: Fan et al., arXiv:2410.07163, Eq. 4. Reference code: OPTML-Group/Unlearn-Simple f1a355d (TOFU), and
    locuslab/open-unlearning d3d7cf9 `simnpo.py` (equal).

    Deviations: the margin is multiplied by β, as in the code; in the paper it is not (both use δ = 0, so there is no
    difference in practice). The retain CE is a mean over rows, as for `npo`.

    Attributes:
        beta: β, per nat per token. At 4.5, an answer with 1 nat per token has 2 % of its first gradient left. Default:
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
    searched: ClassVar[Mapping[str, tuple[float, float]]] = {"beta": (0.5, 20.0)}

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return each answer's SimNPO loss: (2/β) log 2 for a memorised answer, approaching 0 as it is forgotten."""
        return -2 / self.beta * logsigmoid(self.beta * (answers.nll() - self.delta))
