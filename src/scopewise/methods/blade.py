"""Bilevel low-rank augmented-Lagrangian erasure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, Constrained
from scopewise.ops import Reduction, token_entropy


@dataclass(frozen=True, kw_only=True)
class BLADE(Constrained):
    """Raise the entropy at the forget answers until it is high enough, subject to a budget on the retain loss.

    Formula: L_f = mean_t max(0, τ log V - H(P(· | x, y_<t))); each step first takes K plain SGD steps on the retain loss,
    then minimises L_f + λ r + ½ρ max(0, r)² with r = L_r - budget; afterwards λ ← λ + ρ r where r > 0, λ + aρ r else. The
    gradient of a token is exactly zero once it is uncertain enough, so that forgetting ends by itself.

    Source: Toufikuzzaman et al., arXiv:2608.22557, Eq. 3-6; K, η_in, τ, ρ, λ, a of its appendix, budget 3.2 times of its
    KnowUnDo run (TOFU: 0.85 times, which begins in violation). Reference code: tzpranto/open-unlearning, `lora_bial*.py`.
    Deviations: answer positions only (the code: prompts too); a step's retain rows serve the outer loss and others, drawn
    anew, the inner steps; the code's calibration of the learning rate, its extra recovery steps and its stopping rule are
    left out (`guard` stops any method).

    Attributes:
        tau: τ: how uncertain is enough, as a share (0-1) of log V.
    """

    tau: float = 0.7
    inner_steps: int = 3
    retain_weight: float = 1.0
    budget_factor: float = 3.2
    dual_step: float = 0.1
    slack: float = 0.1
    penalty: float = 0.1

    reduction: ClassVar[Reduction] = Reduction.TOKEN_MEAN

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return each answer's mean lack of entropy, in nats per token, 0 to τ log V."""
        enough = self.tau * math.log(answers.logits.shape[-1])
        return answers.mean((enough - token_entropy(answers.logits)).clamp(min=0))
