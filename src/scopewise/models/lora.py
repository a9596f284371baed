"""LoRA layers in fewer passes over memory: fused where they are trained, folded into the weight below where they are not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn

FOLDED_BYTES = 2**30
"""Largest second copy of weights that is made. Beyond it layers are so wide that a thin product costs little."""


class FusedLinear(Linear):
    """PEFT's LoRA layer with the scaling and the sum inside the second product.

    PEFT computes `W x + (B (A x)) · s` in three passes over the output after the product of W, here it is one, and one
    less in the backward.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the layer's output: PEFT's own, but for rounding."""
        if args or kwargs or self.disable_adapters or self.merged or not _is_plain(self):
            return super().forward(x, *args, **kwargs)
        (adapter,) = self.active_adapters
        b = cast(nn.Linear, self.lora_B[adapter])
        if b._forward_pre_hooks or b._forward_hooks or "forward" in vars(b):  # somebody wants B to be called
            return super().forward(x)
        output, low = self.base_layer(x), self.lora_A[adapter](self.lora_dropout[adapter](x))
        scaling = self.scaling[adapter]
        return torch.addmm(output.flatten(0, -2), low.flatten(0, -2), b.weight.T, alpha=scaling).view_as(output)


@contextlib.contextmanager
def fused(model: nn.Module) -> Iterator[None]:
    """Let every LoRA layer of a model be a `FusedLinear` while the context is open, with the same parameters."""
    layers = [layer for layer in model.modules() if type(layer) is Linear]
    for layer in layers:
        layer.__class__ = FusedLinear
    try:
        yield
    finally:
        for layer in layers:
            layer.__class__ = Linear


@contextlib.contextmanager
def folded(model: nn.Module) -> Iterator[None]:
    """Compute every LoRA layer of a model as one product with W + s B A; the weights are put back, bit for bit.

    On a processor the thin products of LoRA take a good part of a small layer's time. It is done there alone, and for
    float32 weights alone: a sum in lower precision would round the adapter away.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, Linear) and _is_foldable(layer)]
    if sum(_weight(layer).nbytes for layer in layers) > FOLDED_BYTES:
        layers = []
    before: list[tuple[Linear, Tensor]] = []
    try:
        with torch.no_grad():
            for layer in layers:
                weight, (adapter,) = _weight(layer), layer.active_adapters
                before.append((layer, weight.data))
                weight.data = weight.data + layer.get_delta_weight(adapter)
                layer.merged_adapters.append(adapter)  # PEFT's own sign: it then computes the layer below alone
        yield
    finally:
        for layer, data in before:
            _weight(layer).data = data
            layer.merged_adapters.clear()


def _weight(layer: Linear) -> Tensor:
    return cast(Tensor, layer.base_layer.weight)


def _is_plain(layer: Linear) -> bool:
    """Return whether a layer has one active adapter, of LoRA without variants or biases, in the dtype of its weight."""
    if len(layer.active_adapters) != 1:
        return False
    (adapter,) = layer.active_adapters
    return (
        adapter in layer.lora_A
        and adapter not in layer.lora_variant
        and not layer.lora_bias[adapter]
        and layer.lora_A[adapter].weight.dtype == _weight(layer).dtype
    )


def _is_foldable(layer: Linear) -> bool:
    """Return whether a layer is plain, and its weight a whole float32 matrix of this process on a processor."""
    weight = _weight(layer)
    return (
        not layer.disable_adapters
        and not layer.merged
        and _is_plain(layer)
        and type(layer.base_layer) is nn.Linear
        and type(weight) is nn.Parameter
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and weight.shape == (layer.out_features, layer.in_features)
    )
