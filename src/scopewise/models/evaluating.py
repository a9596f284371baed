"""The state in which a model is measured."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from scopewise.models.fused import fused
from scopewise.models.lora import folded
from scopewise.models.partitioned import in_parts
from scopewise.models.precision import settled
from scopewise.models.sharded import is_spread


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Hold a model in evaluation mode, without gradients, its adapter folded in and its layers fused; then as it was.

    The adapter must stay the same, and switched on or off, while the context is open.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    # Of a model in parts the weights collected here may be those of the next step, to which inference mode gives no
    # gradient, and what is folded in may be lost before it is read.
    parts = in_parts(model)
    try:
        with (
            contextlib.nullcontext() if parts else folded(model),
            fused(model),
            settled(model),
            torch.no_grad() if parts or is_spread(model) else torch.inference_mode(),
        ):
            yield
    finally:
        for module, mode in modes:
            if module.training != mode:
                module.training = mode
