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
    """Push each answer token below the strongest other one, and no further.

        L = mean_t max(0, margin + P(y_t) - max_{v ≠ y_t} P(v)) + CE(retain)

    Choose it when ascent falls apart: the loss is bounded, and its gradient is that of two tokens. At `margin: 1` the
    maximum with 0 never acts; below, an answer that is beaten by the margin is left alone.

    Source: Cha et al., arXiv:2408.06621. Reference code: csm9493/efficient-llm-unlearning 272484a
    `TOFU/dataloader.py::multiclass_hinge_loss`.

    Deviations: none in the loss. The paper's initialisation of LoRA (FILA) is not here.

    Attributes:
        margin: In probability. Default: the paper.
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
