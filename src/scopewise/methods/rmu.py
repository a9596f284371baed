"""Representation misdirection: the hidden states of one layer, steered to a fixed direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Interval
from jaxtyping import Float
from torch import Tensor

from scopewise.data.batch import collate, to_device
from scopewise.data.prompt import Encoded
from scopewise.methods.base import Answers, LossInput, Method, seeded
from scopewise.models.architecture import evaluation_mode
from scopewise.models.engine import Engine
from scopewise.ops import squared_distance

_ROWS = 16


@dataclass(frozen=True, kw_only=True)
class RMU(Method):
    """Push one layer's hidden states at forget answers to a random vector; keep those at retain answers.

        L = mean_t ‖h_l(y_t) - c u‖² / d + retain_weight · mean_t ‖h_l(y_t) - h_l,ref(y_t)‖² / d

    The second mean is over retain answers. u is a random unit vector with positive entries, h_l the residual stream
    after decoder block l, and d its width. Blocks above l are neither computed nor trained. The authors train the
    `down_proj` matrices of blocks l-2 to l; use the localizer `named` for that (its section has the pattern).

    Choose it for knowledge that must be unavailable in any wording. It is cheap, since blocks above l are not computed.
    The main knob is `steering`: higher forgets more and damages more. `layer_fraction` sets the depth of the layer.

    Source: Li et al., arXiv:2403.03218, section 4. Reference code: the authors' `rmu/unlearn.py`, and
    locuslab/open-unlearning d3d7cf9 `rmu.py`.

    Deviations: answer tokens only, as in open-unlearning (the authors: every position, padding too). For rows of
    different lengths, open-unlearning's value is mean(sum) · mean(1/length), because of a broadcast; here each row has
    its own mean. The same holds for the retain term `hidden` (there EMBED_DIFF). The region decides which matrices are
    trained.

    Attributes:
        steering: c; it must exceed the norm of the hidden states to have an effect. Default: the paper, for Zephyr-7B.
        layer_fraction: l as a share (0-1) of the depth. Default: the paper's layer 7 of the 32 of Zephyr-7B.
        retain_weight: Default: the paper, for Zephyr-7B.
        retain: Default: the paper.
    """

    steering: float = 6.5
    layer_fraction: float = 0.22
    retain_weight: float = 1200.0
    retain: str = "hidden"

    needs: ClassVar[frozenset[LossInput]] = frozenset({"hidden"})
    searched: ClassVar[Mapping[str, tuple[float, float]]] = {"steering": (0.8, 52.0)}

    def hidden_layer(self, layers: int) -> int | None:
        """Return block l."""
        return round(self.layer_fraction * (layers - 1))

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return each answer's mean squared distance to c u, per dimension."""
        assert answers.hidden is not None
        return answers.mean(distance_to_direction(answers.hidden, self.steering))


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
        layer = self.hidden_layer(len(forward.blocks))
        with evaluation_mode(forward.model), torch.no_grad():
            for first in range(0, len(items), _ROWS):
                batch = collate(items[first : first + _ROWS], last=True)
                hidden = forward.outputs(to_device(batch, forward.device), logits=False, layer=layer)[1]
                assert hidden is not None
                states.append(hidden.double())
        return directions(torch.cat(states), self.components)

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return each answer's mean squared distance of the remaining states to c u, per dimension."""
        assert answers.hidden is not None
        assert answers.statistics is not None
        states = answers.hidden
        for common in answers.statistics.to(states):
            states = states - (states @ common).unsqueeze(-1) * common
        return answers.mean(distance_to_direction(states, self.steering))


def distance_to_direction(states: Float[Tensor, "tokens hidden"], steering: float) -> Float[Tensor, "tokens"]:
    """Return the squared distance of states to `steering` times a random unit vector, per dimension."""
    # The direction is part of the method: the same in every step, run and process, whatever else was drawn.
    direction = torch.rand(states.shape[-1], generator=seeded(0), dtype=torch.float64)
    return squared_distance(states, (steering * direction / direction.norm()).to(states).unsqueeze(0))


def directions(states: Float[Tensor, "tokens hidden"], count: int) -> Float[Tensor, "components hidden"]:
    """Return unit vectors: along the mean, then the `count - 1` largest principal components (fewer if there are fewer)."""
    mean = states.mean(0)
    centred = states - mean
    found = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1).T[: count - 1]
    return torch.cat([(mean / mean.norm()).unsqueeze(0), found])
