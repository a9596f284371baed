"""Primal-dual unlearning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, Constrained
from scopewise.ops import Reduction, at_least_float32


@dataclass(frozen=True, kw_only=True)
class PDU(Constrained):
    """Primal-dual unlearning: flatten the logits at the forget answers, subject to a budget on the retain loss.

        minimise L_f = mean_t (max_v z_v - mean_v z_v)²  subject to  L_r ≤ budget,
        by L_f + λ (L_r - budget)  and  λ ← max(0, λ + dual_step · (L_r - budget))  after each step

    L_r is the retain loss.

    Choose it if you know how much retention you can give up. The main knob is `budget_nats`; a higher `dual_step`
    reacts faster but oscillates more.

    Source: Entesari et al., arXiv:2506.05314. Reference code: locuslab/open-unlearning d3d7cf9 `pdu.py` (its
    configuration starts at λ = 1 with a dual step of 1, too little against a squared logit gap).

    Deviations: the logits that *predict* the answer tokens (the code uses those one position later). λ is updated once
    per optimiser step with the loss of all its rows (there once per micro-batch and process). The budget is a multiple
    of the retain loss before unlearning, as in the paper, plus `budget_nats` (in the code it is an absolute number that
    you must give).

    Attributes:
        retain_weight: λ at the start. Default: the authors' TOFU script.
        budget_factor: Default: the paper, whose budget is relative to the loss before.
        budget_nats: How much the retain loss may rise, in nats per token. Default: the number of the authors' TOFU
            script.
        dual_step: Default: the authors' TOFU script.
        warmup_fraction: Default: the authors' TOFU script.
    """

    retain_weight: float = 100.0
    budget_factor: float = 1.0
    budget_nats: float = 0.3
    dual_step: float = 5.0
    warmup_fraction: float = 0.5

    reduction: ClassVar[Reduction] = Reduction.TOKEN_MEAN
    searched: ClassVar[Mapping[str, tuple[float, float]]] = {"budget_nats": (0.04, 2.4)}

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return each answer's mean squared gap between largest and mean logit."""
        logits = at_least_float32(answers.logits)
        return answers.mean((logits.amax(-1) - logits.mean(-1)).square())
