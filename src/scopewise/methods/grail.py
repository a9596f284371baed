"""GRAIL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, LossInput, Method


@dataclass(frozen=True, kw_only=True)
class GRAIL(Method):
    """GA + descent with two masks: ascent skips weights that both scopes need, descent the retain scope's core.

        L = -0.4 · CE(forget) + 2 · CE(retain), each term's gradient masked by the localizer of the same name

    The gradient of the forget term is zero on weights that are among the most important of both scopes; that of the
    retain term is zero on the most important weights of the retain scope.

    Choose it if forget and retain rows share weights and whole matrices are too coarse. The main knobs are the
    localizer's two fractions. A higher `localize.localizer_args.overlap_fraction` protects more shared weights and
    slows forgetting; a higher `localize.localizer_args.core_fraction` freezes more of retention's weights in the retain
    term.

    Source: Kim et al., arXiv:2504.12681. Reference code: piso7/GRAIL 5cd74dd. The formulas are from the code, since we
    could not get the paper's equations.

    Deviations: each term's own gradient is masked, over the whole step (the code also zeroes what earlier micro-batches
    have accumulated, so its result depends on the order of rows); masked weights do not move (there Adam's momentum
    moves them); one pair of scopes; learning rate and epochs are the run's.

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
