"""RMU on what is left of the hidden states without their common directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Interval
from jaxtyping import Float
from torch import Tensor

from scopewise.data.batch import collate, to_device
from scopewise.data.prompt import Encoded
from scopewise.methods.base import Answers, LossInput, Method, seeded
from scopewise.models.engine import Engine
from scopewise.ops import squared_distance

_ROWS = 16


@dataclass(frozen=True, kw_only=True)
class MCU(Method):
    """Steer the hidden states of one layer, without their mean and largest principal components, to a fixed direction.

        L = mean_t ‖h'_l(y_t) - c u‖² / d + retain_weight · mean_t ‖h_l(y_t) - h_l,ref(y_t)‖² / d
        h' is h without its projection on each of `components` directions, one after the other

    The directions are the mean and the largest principal components of the forget answers' states in the model before
    unlearning; the rest is as in RMU.

    Choose it over RMU if RMU damages unrelated knowledge: it does not change the directions that all texts share. Its main
    knob is `components`.

    Source: arXiv:2605.11685. Reference code: sustech-nlp/MCU bb615bb `rmu_mcu`, `_get_projections`.

    Deviations: the retain states are those of the same layer (there the next one). The components are exact (there a
    randomised decomposition). CIR, which also projects each weight update, is not here.

    Attributes:
        components: Number of directions, including the mean. Default: the code.
        steering: c. Default: the code.
        layer_fraction: l as a share (0-1) of the depth. Default: the code's 11th of the 16 blocks of Llama-3.2-1B.
        retain: Default: the code.
    """

    components: Annotated[int, Ge(1)] = 8
    steering: Annotated[float, Gt(0)] = 1.0
    layer_fraction: Annotated[float, Interval(ge=0, le=1)] = 0.67
    retain: str = "hidden"

    needs: ClassVar[frozenset[LossInput]] = frozenset({"hidden"})

    def hidden_layer(self, layers: int) -> int | None:
        """Return block l."""
        return round(self.layer_fraction * (layers - 1))

    def statistics(self, items: Sequence[Encoded], engine: Engine) -> Float[Tensor, "components hidden"]:
        """Return the mean and the principal components of the answers' states, the largest first."""
        forward, states = engine.forward, []
        training = forward.model.training
        forward.model.eval()
        layer = self.hidden_layer(len(forward.blocks))
        with torch.no_grad():
            for first in range(0, len(items), _ROWS):
                batch = collate(items[first : first + _ROWS], last=True)
                hidden = forward.outputs(to_device(batch, forward.device), logits=False, layer=layer)[1]
                assert hidden is not None
                states.append(hidden.double())
        forward.model.train(training)
        return directions(torch.cat(states), self.components)

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return each answer's mean squared distance of the remaining states to c u, per dimension."""
        assert answers.hidden is not None
        assert answers.statistics is not None
        direction = torch.rand(answers.hidden.shape[-1], generator=seeded(0), dtype=torch.float64)
        states = answers.hidden
        for common in answers.statistics.to(states):
            states = states - (states @ common).unsqueeze(-1) * common
        target = (self.steering * direction / direction.norm()).to(states)
        return answers.mean(squared_distance(states, target.unsqueeze(0)))


def directions(states: Float[Tensor, "tokens hidden"], count: int) -> Float[Tensor, "components hidden"]:
    """Return unit vectors: along the mean, then the `count - 1` largest principal components (fewer if there are fewer)."""
    mean = states.mean(0)
    centred = states - mean
    found = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1).T[: count - 1]
    return torch.cat([(mean / mean.norm()).unsqueeze(0), found])
