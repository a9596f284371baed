"""GRAIL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, LossInput, Method


@dataclass(frozen=True, kw_only=True)
class GRAIL(Method):
    """GA + descent in which forgetting leaves alone the weights both scopes use, and retaining those retention uses most.

        L = -0.4 · CE(forget) + 2 · CE(retain), each term's gradient masked by the localizer of this name

    The gradient of the first term is zeroed on the weights that are among the most important of both scopes, that of
    the second on the most important of retention.

    Choose it when forget and retain rows share weights and a whole matrix is too coarse. Its main knobs are the
    localizer's two fractions: more overlap left alone (`localize.localizer_args.overlap_fraction`) protects retention and slows
    forgetting; a larger core (`localize.localizer_args.core_fraction`) holds retention still.

    Source: Kim et al., arXiv:2504.12681. Reference code: piso7/GRAIL 5cd74dd (the formulas are read from it: the
    paper's equations were not to be had).

    Deviations: each term's gradient is masked, over the whole step (the code zeroes what the micro-batches before have
    accumulated as well, so that its result depends on the order of rows); masked weights do not move (there Adam's
    momentum moves them); one pair of scopes; learning rate and epochs are the run's.

    Attributes:
        forget_weight: Default: the code.
        retain_weight: Default: the code.
        retain: Default: the code.
    """

    forget_weight: float = 0.4
    retain_weight: float = 2.0
    retain: str = "ce"

    localizer: ClassVar[str] = "grail"
    needs: ClassVar[frozenset[LossInput]] = frozenset({"nll"})

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return the mean log-likelihood of each forget answer in nats per token."""
        return -answers.nll()
