"""The state in which a model is measured."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from scopewise.models.lora import folded
from scopewise.models.sharded import is_spread


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Hold a model in evaluation mode, without gradients, its adapter folded in; then as it was.

    The adapter must stay the same, and switched on or off, while the context is open.
    """
    training = model.training
    model.eval()
    try:
        # What is gathered in inference mode can be no part of a backward pass later.
        with folded(model), torch.no_grad() if is_spread(model) else torch.inference_mode():
            yield
    finally:
        model.train(training)
