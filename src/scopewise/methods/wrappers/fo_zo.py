"""First-order and zeroth-order steps in turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from scopewise.methods.wrappers.base import Gradient, Inner, Parts, Step, Term, Wrapper, moved


@dataclass(frozen=True, kw_only=True)
class FOZO(Wrapper):
    """Alternate ordinary steps with zeroth-order steps, which estimate the slope along a random direction from two losses.

        zeroth-order gradient = (L(θ + mu · u) - L(θ - mu · u)) / (2 mu) · u,   u standard normal, new in each step

    `period` steps of one kind, then as many of the other; the last ones are zeroth-order.

    Choose it if a step should need no second backward pass; the noise of zeroth-order steps leads to flatter minima. Its
    main knob is `period`. Adam divides by the gradient's size, so zeroth-order steps are as long as the others: lower the
    learning rate.

    Source: arXiv:2510.00761. Reference code: none is available.

    Deviations: Adam takes both kinds of steps. Each step uses one direction.

    Attributes:
        period: Steps of each kind in turn. Default: the paper.
        mu: Half of the distance, along u, between the two points at which the loss is computed. Default: that of
            zeroth-order fine-tuning (MeZO, arXiv:2305.17333).
    """

    period: Annotated[int, Ge(1)] = 20
    mu: Annotated[float, Gt(0)] = 1e-3

    name: ClassVar[str] = "fo_zo"

    def gradient(self, step: Step, term: Term, parts: Parts, inner: Inner) -> Gradient:
        """Return the gradient, or in a zeroth-order step its estimate along the step's direction."""
        if (step.count - 1 - step.number) // self.period % 2:
            return inner(parts)
        direction = self.direction(step)
        losses = []
        for sign in (1, -1):
            with moved(step.parameters, direction, sign * self.mu):
                losses.append(step.loss(term, parts))
        slope = (losses[0] - losses[1]) / (2 * self.mu)
        return [slope * part for part in direction]

    def direction(self, step: Step) -> list[Tensor]:
        """Return u, the same for both terms, on every device and in every process."""
        generator = torch.Generator().manual_seed(hash_of(step.seed))
        return [torch.randn(p.shape, generator=generator).to(p) for p in step.parameters]


def hash_of(text: str) -> int:
    """Return a seed for a text, the same in every process (`hash` is not)."""
    return int.from_bytes(text.encode(), "big") % (2**63 - 1)
