"""Losses of answer tokens from the states that the head reads, without the logits of all tokens at once.

The logits of 4096 answer tokens over a vocabulary of 128,256 take 2 GB in float32, and their softmax and gradient as much
again. A loss that is one number per token is computed in chunks of tokens. While the logits of a chunk exist, their
gradient with respect to the states is computed too, so nothing of the size of the logits is kept or computed twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

CHUNK_LOGITS = 2**25
"""Logits that exist at once on an accelerator: 128 MiB in float32."""

CPU_CHUNK_LOGITS = 2**21
"""The same on a CPU: 8 MiB."""

LEAST_TOKENS = 64
"""Smallest chunk: with fewer tokens, reading the head's weights takes longer than the product."""

TokenLoss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Takes logits, which it may overwrite, and the second argument's part; returns each token's loss and its gradient."""


def in_chunks(head: nn.Module, loss: TokenLoss, states: Tensor, other: Tensor) -> Tensor:
    """Return `loss(head(states), other)` of each token, in chunks of tokens; differentiable in `states` alone.

    Args:
        head: Maps states [tokens hidden] to logits.
        loss: Of each token, depending on that token's logits and its part of `other` alone.
        states: [tokens hidden].
        other: [tokens ...], such as labels.
    """
    found: Tensor = _Chunked.apply(states, other, head, loss, chunk_tokens(head, states))  # type: ignore[no-untyped-call]
    return found


def chunk_tokens(head: nn.Module, states: Tensor) -> int:
    """Return how many tokens' logits exist at once."""
    logits = CPU_CHUNK_LOGITS if states.device.type == "cpu" else CHUNK_LOGITS
    return max(LEAST_TOKENS, logits // int(head.weight.shape[0]))  # type: ignore


class _Chunked(torch.autograd.Function):
    """The gradient of the summed loss holds each token's own gradient; the backward scales each by what it is given."""

    @staticmethod
    def forward(ctx: FunctionCtx, states: Tensor, other: Tensor, head: nn.Module, loss: TokenLoss, size: int) -> Tensor:
        wanted = ctx.needs_input_grad[0]  # type: ignore[attr-defined]
        values, gradients = [], []
        for part, given in zip(states.split(size), other.split(size), strict=True):
            part = part.detach().requires_grad_(wanted)
            with torch.set_grad_enabled(wanted):
                logits = head(part)
            value, of_logits = loss(logits.detach(), given)
            values.append(value)
            if wanted:
                gradients += torch.autograd.grad(logits, part, of_logits.to(logits.dtype))
        if wanted:
            ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (of_states,) = ctx.saved_tensors
        return (of_states * gradient.unsqueeze(-1)).to(of_states.dtype), None, None, None, None
