"""Bilevel low-rank augmented-Lagrangian erasure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, Constrained
from scopewise.ops import Reduction, token_entropy


@dataclass(frozen=True, kw_only=True)
class BLADE(Constrained):
    """Raise the entropy at the forget answers to a target value, subject to a budget on the retain loss.

        minimise L_f + λ r + ½ρ max(0, r)²,   L_f = mean_t max(0, τ log V - H(P(· | x, y_<t))),   r = L_r - budget,
        after K plain SGD steps on L_r;   then λ ← max(0, λ + ρ r) where r > 0, max(0, λ + aρ r) else

    L_r is the retain loss. The gradient of a token is exactly zero once its entropy reaches the target, so forgetting
    stops by itself. In the paper's ablation the inner steps add .004 to a harmonic mean of .823.

    Choose it if forgetting has to stop by itself and retention has a budget. The main knob is `budget_factor`: lower
    keeps more, higher forgets faster. `tau` is the target entropy.

    Source: Toufikuzzaman et al., arXiv:2608.22557, Eq. 3-6. Reference code: tzpranto/open-unlearning a8c7b7d
    `lora_bial*.py`.

    Deviations: answer positions only (the code: prompts and the last position too). λ may fall to 0 (there to .1). The
    outer loss uses the step's retain rows and the inner steps newly drawn ones (there from a loader of their own). We
    leave out the code's learning-rate calibration, its extra recovery steps and its stopping rule (`early_stopping`
    works with any method).

    Attributes:
        tau: τ: the target entropy, as a share (0-1) of log V. Default: the paper's appendix.
        inner_steps: K plain SGD steps on the retain loss before each optimiser step except the first. Default: the
            paper's appendix.
        retain_weight: λ at the start. Default: the paper's appendix.
        budget_factor: Default: the paper's KnowUnDo runs; 0.85 for TOFU, which begins in violation.
        dual_step: Step of the dual variable: the paper's ρ, as `penalty`. Default: the paper's appendix.
        slack: a, the factor of the step while the loss is within the budget. Default: the paper's appendix.
        penalty: Default: the paper's appendix.
    """

    tau: float = 0.7
    inner_steps: int = 3
    retain_weight: float = 1.0
    budget_factor: float = 3.2
    dual_step: float = 0.1
    slack: float = 0.1
    penalty: float = 0.1

    reduction: ClassVar[Reduction] = Reduction.TOKEN_MEAN
    searched: ClassVar[Mapping[str, tuple[float, float]]] = {"tau": (0.3, 1.0), "budget_factor": (1.0, 10.0)}

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return the mean over each answer's tokens of max(0, τ log V - entropy), in nats."""
        enough = self.tau * math.log(answers.logits.shape[-1])
        return answers.mean((enough - token_entropy(answers.logits)).clamp(min=0))
