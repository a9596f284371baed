"""Interpolation with the target's weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Interval
from torch import Tensor

from scopewise.attacks.base import Attack, Facts, InapplicableError, Outcome, Suite, Work
from scopewise.attacks.leakage import Combine
from scopewise.attacks.weights import block_weights, changed_weights
from scopewise.models.engine import Engine


@dataclass(frozen=True, kw_only=True)
class Merging(Attack):
    """Interpolate the weights towards the target's, to see how close the forgotten answer is.

    Signal: probability of the answer with w + α (w_target - w), with each α of `fractions`, in the linear layers of the decoder
    blocks. It is a diagnostic, not a threat: an attacker who has the target has the answers.

    Source: linear interpolation of fine-tuned models (Ilharco et al., arXiv:2212.04089).

    Attributes:
        fractions: Shares (0-1) of the target's weights, α. Default: ours.
    """

    fractions: tuple[Annotated[float, Interval(gt=0, le=1)], ...] = (0.1, 0.25, 0.5)

    name: ClassVar[str] = "merging"
    suite: ClassVar[Suite] = "full"
    combine: ClassVar[Combine] = "mean"
    needs_target: ClassVar[bool] = True

    def work(self, facts: Facts) -> Work:
        """Return about what the attack costs on one model."""
        return Work(passes=len(self.fractions))

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Return the probability of the answers at each α."""
        weights = block_weights(target.model)
        mine = block_weights(subject.model)
        if {n: w.shape for n, w in mine.items()} != {n: w.shape for n, w in weights.items()}:
            raise InapplicableError("the target has different matrices")
        # Copy, since the subject may be the target itself, whose weights change while they are read.
        copies = {name: weight.clone() for name, weight in weights.items()}
        changes = {f"{100 * share:g}%": _Mix(share, copies) for share in self.fractions}
        return changed_weights(subject, facts, changes, "merge")


class _Mix:
    def __init__(self, share: float, other: Mapping[str, Tensor]) -> None:
        self.share, self.other = share, other

    def __call__(self, name: str, weight: Tensor) -> Tensor:
        return weight + self.share * (self.other[name].to(weight) - weight)
