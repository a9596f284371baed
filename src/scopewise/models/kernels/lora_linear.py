"""A LoRA layer as one autograd function.

PEFT computes `W x + (B (A x)) · s` in three passes over the output after the product with W, and its backward adds two
gradients of x. Here the forward adds the low-rank product in place, and the backward adds its second product in place. PEFT
has no interface for another implementation of its layers, so their `forward` is replaced. This kernel is not used with
`torch.compile` (`torch_compile: true`), which fuses these operations itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


@contextlib.contextmanager
def fused_lora(model: nn.Module) -> Iterator[None]:
    """Compute the model's LoRA layers in fewer passes while the context is open; parameters, names and hooks stay."""
    layers = [m for m in model.modules() if type(m) is Linear and "forward" not in vars(m)]
    for layer in layers:
        layer.forward = partial(_forward, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _forward(layer: Linear, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Return the layer's output, equal to PEFT's up to rounding."""
    theirs = Linear.forward
    if args or kwargs or layer.disable_adapters or layer.merged or not is_plain(layer):
        return theirs(layer, x, *args, **kwargs)
    (adapter,) = layer.active_adapters
    base, a, b = parts = [layer.base_layer, layer.lora_A[adapter], layer.lora_B[adapter]]
    watched = any(m._forward_pre_hooks or m._forward_hooks or m._backward_hooks or "forward" in vars(m) for m in parts)
    if watched or type(base) is not nn.Linear or torch.is_autocast_enabled(x.device.type):
        return theirs(layer, x)
    dropped = layer.lora_dropout[adapter](x)
    found: Tensor = _Product.apply(  # type: ignore[no-untyped-call]
        x,
        None if dropped is x else dropped,
        base.weight,
        base.bias,
        a.weight,
        b.weight,
        layer.scaling[adapter],
    )
    return found


class _Product(torch.autograd.Function):
    """`W x + bias + s B (A d)`, where d is x, or x after dropout."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dropped: Tensor | None, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, s: float
    ) -> Tensor:
        flat = x.flatten(0, -2)
        read = flat if dropped is None else dropped.flatten(0, -2)
        low = read @ a.T
        ctx.save_for_backward(read, low, weight, a, b, flat if ctx.needs_input_grad[2] else None)
        ctx.scaling, ctx.shape, ctx.drops = s, x.shape, dropped is not None
        # Return the tensor itself, not a view, since readers of logits overwrite them.
        found = functional.linear(x, weight, bias)
        found.view(-1, weight.shape[0]).addmm_(low, b.T, alpha=s)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        read, low, weight, a, b, flat = ctx.saved_tensors
        gradient = gradient.flatten(0, -2)
        of_weight = gradient.T @ flat if ctx.needs_input_grad[2] else None
        of_bias = gradient.sum(0) if ctx.needs_input_grad[3] else None
        of_low = (gradient @ b).mul_(ctx.scaling)
        of_a = of_low.T @ read if ctx.needs_input_grad[4] else None
        of_b = (low.T @ gradient).mul_(ctx.scaling).T if ctx.needs_input_grad[5] else None
        of_x = of_dropped = None
        if ctx.needs_input_grad[0]:
            of_x = gradient @ weight
            if ctx.drops:
                of_dropped = (of_low @ a).view(ctx.shape)
            else:
                of_x.addmm_(of_low, a)
            of_x = of_x.view(ctx.shape)
        return of_x, of_dropped, of_weight, of_bias, of_a, of_b, None


def is_plain(layer: Linear) -> bool:
    """Return whether a layer has one active adapter, of LoRA without variants or biases, in the dtype of its weight."""
    if len(layer.active_adapters) != 1:
        return False
    (adapter,) = layer.active_adapters
    return (
        adapter in layer.lora_A
        and adapter not in layer.lora_variant
        and not layer.lora_bias[adapter]
        and layer.lora_A[adapter].weight.dtype == cast(Tensor, layer.base_layer.weight).dtype
    )
