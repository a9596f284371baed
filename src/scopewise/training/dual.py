"""The dual variable that holds a retain loss within its budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from scopewise.data.prompt import Encoded
from scopewise.methods.base import Constrained


@dataclass
class Dual:
    """State of a `Constrained` method over the steps of a training; a checkpoint keeps it.

    Attributes:
        multiplier: λ.
        budget: What the retain loss may be, in its own unit (nats per token for CE).
    """

    multiplier: float
    budget: float

    @staticmethod
    def begin(method: Constrained, items: Sequence[Encoded], nll: Sequence[float]) -> Dual:
        """Return the state before the first step, from the NLL (nats) of all retain answers before unlearning."""
        loss = 0.0  # the other retain terms are distances to the model before unlearning
        if "ce" in method.retain_terms:
            counts = torch.tensor([len(item.answer_ids) for item in items])
            weight = method.weight(counts)
            loss = float((torch.tensor(nll) / counts * weight).sum() / weight.sum())
        return Dual(method.retain_weight, method.budget_factor * loss + method.budget_nats)

    def weight(self, method: Constrained, loss: float) -> float:
        """Return the factor of the retain term's gradient: that of λ r + ½ρ max(0, r)² is λ + ρ max(0, r)."""
        return self.multiplier + method.penalty * max(0.0, loss - self.budget)

    def update(self, method: Constrained, loss: float, done_fraction: float) -> None:
        """Move λ after a step whose rows had the retain loss `loss`."""
        if done_fraction < method.warmup_fraction:
            return
        violation = loss - self.budget
        step = method.dual_step * (1.0 if violation > 0 else method.slack)
        self.multiplier = max(0.0, self.multiplier + step * violation)

    def document(self) -> dict[str, float]:
        """Return what a checkpoint keeps."""
        return asdict(self)
