"""The state in which a model is measured."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from scopewise.models.lora import folded
from scopewise.models.processes import on_deepspeed


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Hold a model in evaluation mode, without gradients, its adapter folded in; then as it was.

    The adapter must stay the same, and switched on or off, while the context is open.
    """
    training = model.training
    model.eval()
    # DeepSpeed collects a layer's weights when it is called, and keeps some for the next step: what was folded in would be
    # lost, and tensors of inference mode have no gradient.
    reading = torch.no_grad() if on_deepspeed() else torch.inference_mode()
    try:
        with contextlib.nullcontext() if on_deepspeed() else folded(model), reading:
            yield
    finally:
        model.train(training)
