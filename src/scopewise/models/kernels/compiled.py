"""Decoder blocks through `torch.compile`, for the time of a training."""

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

    Only the blocks: all layers share one compilation, and the head stays as it is, whose hook is another one in each
    step. Shapes are dynamic from the start, so that a batch of another length is no reason to compile again; with and
    without a mask, and with and without gradients, are compilations of their own.

    Args:
        model: A causal LM, with or without adapters.
        backend: As `torch.compile` takes it.
    """
    blocks = list(decoder_blocks(model))
    before = [block.__dict__.get("forward") for block in blocks]
    for block in blocks:
        # The forward alone, not the whole call: hooks that read a block's states change from step to step.
        block.forward = torch.compile(block.forward, dynamic=True, backend=backend)
    try:
        yield
    finally:
        for block, own in zip(blocks, before, strict=True):
            if own is None:
                del block.forward
            else:
                block.forward = own
