"""The training loss since the last log; checkpoints save it, so that a resumed run logs the same curve."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Unlogged:
    """Sums the losses of a process since the last log, in float32 on the device, without synchronising.

    Args:
        loss: Sum so far, from a checkpoint.
        steps: Number of steps in it.
    """

    def __init__(self, loss: float = 0.0, steps: int = 0) -> None:
        self.loss = torch.tensor(loss)
        self.steps = steps

    def add(self, loss: Tensor) -> None:
        """Add the loss of a micro-batch."""
        self.loss = self.loss.to(loss.device) + loss.detach()

    def take(self, gather: Callable[[Tensor], Tensor]) -> float:
        """Return the mean per step over all processes, and reset. All processes have to call this."""
        mean = float(gather(self.loss.reshape(1)).mean()) / max(1, self.steps)
        self.loss, self.steps = torch.zeros_like(self.loss), 0
        return mean
