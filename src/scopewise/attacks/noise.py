"""Noise on the weights."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt
from torch import Tensor

from scopewise.attacks.base import Attack, Facts, Outcome, Suite, Work
from scopewise.attacks.weights import changed_weights
from scopewise.models.engine import Engine


@dataclass(frozen=True, kw_only=True)
class Noise(Attack):
    """Add small random noise to the weights, to see whether a small perturbation brings the answer back.

    Signal: probability of the answer with normal noise in proportion to each matrix's root mean square; all models get
    the same noise. It is the control of `quantization`: if noise recovers as much, the recovery is not due to the
    quantization grid.

    Source: ours.

    Attributes:
        sizes: Standard deviations of the noise, as shares of a matrix's root mean square. Default: ours.
    """

    sizes: tuple[Annotated[float, Gt(0)], ...] = (0.03, 0.1)

    name: ClassVar[str] = "noise"
    suite: ClassVar[Suite] = "full"

    def work(self, facts: Facts) -> Work:
        """Return about what the attack costs on one model."""
        return Work(passes=len(self.sizes))

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Return the probability of the answers at each noise level."""
        changes = {f"{100 * size:g}%": _Add(size, facts.seed) for size in self.sizes}
        return changed_weights(subject, facts, changes, "noise")


class _Add:
    def __init__(self, size: float, seed: int) -> None:
        self.size, self.seed = size, seed

    def __call__(self, name: str, weight: Tensor) -> Tensor:
        digest = hashlib.sha256(f"{self.seed} {name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        noise = torch.randn(weight.shape, generator=generator).to(weight)
        return weight + self.size * weight.square().mean().sqrt() * noise
