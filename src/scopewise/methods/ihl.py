"""Inverted hinge loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt
from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, Method
from scopewise.ops import Reduction, at_least_float32


@dataclass(frozen=True, kw_only=True)
class IHL(Method):
    """Push the probability of each answer token below that of the strongest other token, and no further.

        L = mean_t max(0, margin + P(y_t) - max_{v ≠ y_t} P(v)) + CE(retain)

    Choose it if gradient ascent diverges: this loss is bounded, and its gradient involves only two tokens. At `margin: 1`
    the maximum with 0 never acts; with a smaller margin, a token that is already below by the margin has no gradient.

    Source: Cha et al., arXiv:2408.06621. Reference code: csm9493/efficient-llm-unlearning 272484a
    `TOFU/dataloader.py::multiclass_hinge_loss`.

    Deviations: none in the loss. The paper's initialisation of LoRA (FILA) is not here.

    Attributes:
        margin: How far below, in probability. Default: the paper.
        retain: Default: the code.
    """

    margin: Annotated[float, Gt(0)] = 1.0
    retain: str = "ce"

    reduction: ClassVar[Reduction] = Reduction.TOKEN_MEAN

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return each answer's mean hinge, 0 to 1 + margin."""
        probability = at_least_float32(answers.logits).softmax(-1)
        label = answers.label.unsqueeze(-1)
        wanted = probability.gather(-1, label).squeeze(-1)
        strongest = probability.scatter(-1, label, 0.0).amax(-1)
        return answers.mean((self.margin + wanted - strongest).clamp(min=0))
