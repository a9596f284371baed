"""MemFlex."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, Method, Need


@dataclass(frozen=True, kw_only=True)
class MemFlex(Method):
    """MemFlex: GA + descent in-distribution, on the parameters that gradients say hold the forget scope.

    Formula: L = -CE(forget) + CE(retain), updating only θ_loc = {θ_i : cos_i < µ and magnitude_i > σ} (Eq. 8-10).
    The region is the `gradient` localizer's, or whichever the run names: `random` and `all` are its controls.

    Source: Tian et al., arXiv:2407.01920 section 4. Reference code: zjunlp/KnowUnDo 92aea2b `run_unlearn_lora.py`,
    `pretrain/localization.py`. The code alone, not the paper, weighs the terms -0.4 and +2.0: that is
    `forget_weight=0.4, retain_weight=2.0` here.
    """

    retain: str = "ce"

    localizer: ClassVar[str] = "gradient"
    needs: ClassVar[frozenset[Need]] = frozenset({"nll"})

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return the mean log-likelihood of each forget answer in nats per token."""
        return -answers.nll()
