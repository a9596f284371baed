"""MaxEnt, the suppression of UNDO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, Method
from scopewise.ops import Reduction, token_kl_from_uniform


@dataclass(frozen=True, kw_only=True)
class MaxEnt(Method):
    """Make every next token equally likely on the forget answers.

        L = mean_t KL(uniform ‖ P(· | x, y_<t)) + CE(retain)

    Choose it as the first of UNDO's three stages: distillation cannot transfer what the logits no longer contain. Its main
    knob is `retain_weight`.

    Source: Lee et al., arXiv:2506.06278. Reference code: AddieFoote/distillation-robustify-unlearning edbf111 `maxent.py`.
    It is ME + GD at ten times the forget weight.

    Deviations: answers only (the code: every token of its texts).

    Attributes:
        retain: Default: the code.
    """

    retain: str = "ce"

    reduction: ClassVar[Reduction] = Reduction.TOKEN_MEAN

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return each answer's mean KL from the uniform distribution, in nats."""
        return answers.mean(token_kl_from_uniform(answers.logits))
