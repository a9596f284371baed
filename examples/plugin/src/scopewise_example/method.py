"""The inverted hinge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt
from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, Method


@dataclass(frozen=True, kw_only=True)
class InvertedHinge(Method):
    """Push the probability of each answer token below that of the strongest other token.

        L = mean_t max(0, margin + P(y_t) - max_{v ≠ y_t} P(v))

    Source: Cha et al., arXiv:2408.06621.

    Attributes:
        margin: How far below (in probability). Default: the paper.
    """

    margin: Annotated[float, Gt(0)] = 1.0
    retain: str = "ce"

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return each answer's loss, 0 to 1 + margin."""
        probability = answers.logits.softmax(-1)
        label = answers.label.unsqueeze(-1)
        wanted = probability.gather(-1, label).squeeze(-1)
        strongest = probability.scatter(-1, label, 0.0).amax(-1)
        return answers.mean((self.margin + wanted - strongest).clamp(min=0))
