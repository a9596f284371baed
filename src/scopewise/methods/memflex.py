"""MemFlex."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, LossInput, Method


@dataclass(frozen=True, kw_only=True)
class MemFlex(Method):
    """MemFlex: GA + descent on a region, the parameters that store the forget scope according to their gradients.

        L = -forget_weight · CE(forget) + retain_weight · CE(retain)
        updating only θ_loc = { θ_i : cos_i < µ and magnitude_i > σ }

    The region is that of the `gradient` localizer unless the run names another one, such as the controls `random` and
    `all`. `memflex@all` is the same as `ga_descent`: with the same settings both give the same model. Compare `memflex`
    with `memflex@all` to see the effect of localization, and with `memflex@random` to see whether the choice of
    parameters matters.

    Choose it if only a part of the parameters should change. Always run `memflex@random` too, which is the same loss on
    a random region of the same size. The main knob is the size of the region: a higher µ or a lower σ makes it larger,
    which gives forgetting more capacity and leaves fewer parameters unchanged. `retain_weight` works as in
    `ga_descent`.

    Source: Tian et al., arXiv:2407.01920, section 4, Eq. 8-10, whose loss has no weights. Reference code:
    zjunlp/KnowUnDo 92aea2b `run_unlearn_lora.py`, `pretrain/localization.py`.

    Deviations: those of `ga_descent` and of the `gradient` localizer. The code, but not the paper, uses the weights
    -0.4 and +2.0; here they are `method_args: {forget_weight: 0.4, retain_weight: 2.0}` (the loss contains the minus
    sign).

    Attributes:
        retain: Default: KnowUnDo's in-distribution descent.
    """

    retain: str = "ce"

    localizer: ClassVar[str] = "gradient"
    needs: ClassVar[frozenset[LossInput]] = frozenset({"nll"})

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return the mean log-likelihood of each forget answer in nats per token."""
        return -answers.nll()
