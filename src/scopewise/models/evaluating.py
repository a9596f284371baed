"""The state in which a model is measured."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from scopewise.models.fused import fused
from scopewise.models.lora import folded


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Hold a model in evaluation mode, without gradients, its adapter folded in and its layers fused; then as it was.

    The adapter must stay the same, and switched on or off, while the context is open.
    """
    training = model.training
    model.eval()
    try:
        with folded(model), fused(model), torch.inference_mode():
            yield
    finally:
        model.train(training)
