"""Gradient ascent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, LossInput, Method


@dataclass(frozen=True, kw_only=True)
class GradientAscent(Method):
    """Gradient ascent on the forget answers, without a retain term.

        L = -CE(forget)

    Choose it as the lower bound of a comparison. The main knob is `learning_rate` × `num_train_epochs`: the loss has no
    minimum, so more training forgets more and also damages everything else more.

    Source: Jang et al., arXiv:2210.01504; KnowUnDo table 2 "Gradient Ascent". Reference code: zjunlp/KnowUnDo 92aea2b
    `methods/gradient_ascent.py`.

    Deviations: none at batch 1 per process, where both give the same number. The code averages over the tokens of a
    batch; here each answer has the same weight.
    """

    needs: ClassVar[frozenset[LossInput]] = frozenset({"nll"})

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return the mean log-likelihood of each answer in nats per token; minimising it is ascent on CE."""
        return -answers.nll()
