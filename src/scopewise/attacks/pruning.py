"""Magnitude pruning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Interval
from torch import Tensor

from scopewise.attacks.base import Attack, Facts, Outcome, Suite, Work
from scopewise.attacks.weights import changed_weights
from scopewise.models.engine import Engine


@dataclass(frozen=True, kw_only=True)
class Pruning(Attack):
    """Set the smallest weights of each matrix to zero, which removes an update that consists of many small changes.

    Signal: probability of the answer with each of `fractions` of each matrix pruned by magnitude.

    Source: magnitude pruning as in Łucki et al., arXiv:2409.18025 (ethz-spylab/unlearning-vs-safety 75dade5), by each
    model's own magnitudes.

    Attributes:
        fractions: Shares (0-1) of each matrix that are set to zero. Default: ours.
    """

    fractions: tuple[Annotated[float, Interval(gt=0, lt=1)], ...] = (0.1, 0.3, 0.5)

    name: ClassVar[str] = "pruning"
    suite: ClassVar[Suite] = "quick"

    def work(self, facts: Facts) -> Work:
        """Return about what the attack costs on one model."""
        return Work(passes=len(self.fractions))

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Return the probability of the answers at each share."""
        changes = {f"{100 * share:g}%": _Prune(share) for share in self.fractions}
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
