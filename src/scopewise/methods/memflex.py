"""MemFlex."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, LossInput, Method


@dataclass(frozen=True, kw_only=True)
class MemFlex(Method):
    """MemFlex: GA + descent in-distribution, on the parameters that gradients say hold the forget scope.

        L = -forget_weight · CE(forget) + retain_weight · CE(retain)
        updating only θ_loc = { θ_i : cos_i < µ and magnitude_i > σ }

    The region is the `gradient` localizer's, or whichever the run names: `random` and `all` are its controls.
    `memflex@all` is `ga_descent` under another name: with the same settings both give the same model. The difference
    between `memflex` and `memflex@all` is what localization does; that between `memflex` and `memflex@random` is what
    its place does.

    Choose it when only a part of the parameters should change, and always beside `memflex@random`, the same loss on a
    random region of the same size. Its main knob, the size of the region (µ up or σ down makes it larger), trades room
    to forget in against parameters left untouched; `retain_weight` trades as in `ga_descent`.

    Source: Tian et al., arXiv:2407.01920, section 4, Eq. 8-10, whose loss has no weights. Reference code:
    zjunlp/KnowUnDo 92aea2b `run_unlearn_lora.py`, `pretrain/localization.py`.

    Deviations: those of `ga_descent` and of the `gradient` localizer. The code alone, not the paper, weighs the terms
    -0.4 and +2.0: that is `method_args: {forget_weight: 0.4, retain_weight: 2.0}` here (the sign of the ascent is in
    the loss).

    Attributes:
        retain: Default: KnowUnDo's in-distribution descent.
    """

    retain: str = "ce"

    localizer: ClassVar[str] = "gradient"
    needs: ClassVar[frozenset[LossInput]] = frozenset({"nll"})

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return the mean log-likelihood of each forget answer in nats per token."""
        return -answers.nll()
