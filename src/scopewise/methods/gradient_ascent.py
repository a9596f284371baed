"""Gradient ascent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, Method, Need


@dataclass(frozen=True, kw_only=True)
class GradientAscent(Method):
    """Gradient ascent on the forget answers; nothing protects what is to stay.

    Formula: L = -CE(forget).

    Source: Jang et al., arXiv:2210.01504; KnowUnDo table 2 "Gradient Ascent". Reference code:
    zjunlp/KnowUnDo 92aea2b `methods/gradient_ascent.py` (equal at batch 1 per process).
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"nll"})

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return the mean log-likelihood of each answer in nats per token: minimising it is ascent on CE."""
        return -answers.nll()
