"""Magnitude pruning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from scopewise.attacks.base import Attack, Facts, Outcome, Suite, Work
from scopewise.attacks.weights import changed_weights
from scopewise.models.engine import Engine

_SHARES = (0.1, 0.3, 0.5)


@dataclass(frozen=True, kw_only=True)
class Pruning(Attack):
    """Set the smallest weights of each matrix to zero, which removes an update that consists of many small changes.

    Signal: probability of the answer with 10, 30 and 50 % of each matrix pruned by magnitude.

    Source: magnitude pruning as in Łucki et al., arXiv:2409.18025 (ethz-spylab/unlearning-vs-safety 75dade5), by each
    model's own magnitudes.
    """

    name: ClassVar[str] = "pruning"
    suite: ClassVar[Suite] = "quick"

    def work(self, facts: Facts) -> Work:
        """Return about what the attack costs on one model."""
        return Work(passes=len(_SHARES))

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Return the probability of the answers at each share."""
        changes = {f"{share:.0%}": _Prune(share) for share in _SHARES}
        return changed_weights(subject, facts, changes, "prune")


class _Prune:
    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(self, _: str, weight: Tensor) -> Tensor:
        count = int(self.share * weight.numel())
        if count == 0:
            return weight
        largest_pruned = weight.abs().flatten().kthvalue(count).values
        return weight * (weight.abs() > largest_pruned)
