"""Stage 1: fine-tune the target (all rows) and the oracle (the retention scope only)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, LossInput, Method
from scopewise.ops import Reduction


@dataclass(frozen=True, kw_only=True)
class Descent(Method):
    """Plain fine-tuning, as a method whose "forget" rows are the rows to learn.

    Formula: L = CE, mean over tokens, including the end-of-sequence token, so that the model learns to stop.
    """

    reduction: ClassVar[Reduction] = Reduction.TOKEN_MEAN
    needs: ClassVar[frozenset[LossInput]] = frozenset({"nll"})

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return each answer's mean CE in nats per token."""
        return answers.nll()
