"""Compile decoder blocks with `torch.compile` during training."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from scopewise.models.architecture import decoder_blocks


@contextlib.contextmanager
def compiled_blocks(model: nn.Module, backend: str | Callable[..., Any] = "inductor") -> Iterator[None]:
    """Run each decoder block compiled while the context is open.

    Only the blocks are compiled, since all layers share one compilation; the head has another hook in each step. Shapes are
    dynamic from the start, so that a batch of another length does not trigger a new compilation. There are separate
    compilations with and without a mask, and with and without gradients.

    Args:
        model: A causal LM, with or without adapters.
        backend: As `torch.compile` takes it.
    """
    blocks = list(decoder_blocks(model))
    before = [block.__dict__.get("forward") for block in blocks]
    for block in blocks:
        # Compile only the forward, not the whole call: hooks that read a block's states change from step to step.
        block.forward = torch.compile(block.forward, dynamic=True, backend=backend)
    try:
        yield
    finally:
        for block, own in zip(blocks, before, strict=True):
            if own is None:
                del block.forward
            else:
                block.forward = own
