"""Compute LoRA layers as one product during evaluation on a CPU.

The thin products of LoRA take a large part of a small layer's time on a CPU. PEFT's `merge_adapter` does the same, but
`unmerge_adapter` subtracts the adapter again, which changes weights by rounding. Here the weights are restored bit for bit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import cast

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn

from scopewise.models.kernels.lora_linear import is_plain
from scopewise.models.merging import weight_of

MERGED_BYTES = 2**30
"""Largest second copy of weights that is made. Beyond it layers are so wide that a thin product costs little."""


@contextlib.contextmanager
def with_merged_lora(layers: Iterable[Linear]) -> Iterator[None]:
    """Compute LoRA layers as one product with W + s B A while the context is open.

    Only for float32 weights on a CPU: in lower precision, the sum would round the adapter away.

    Args:
        layers: The `mergeable` layers of the model's abilities.
    """
    layers = [layer for layer in layers if _may_merge(layer)]
    if sum(weight_of(layer).nbytes for layer in layers) > MERGED_BYTES:
        layers = []
    before: list[tuple[Linear, Tensor]] = []
    try:
        with torch.no_grad():
            for layer in layers:
                weight, (adapter,) = weight_of(layer), layer.active_adapters
                before.append((layer, weight.data))
                a, b = (cast(Tensor, part[adapter].weight) for part in (layer.lora_A, layer.lora_B))
                weight.data = torch.addmm(weight.data, b, a, alpha=layer.scaling[adapter])
                layer.merged_adapters.append(adapter)  # PEFT's own sign: it then computes the layer below alone
        yield
    finally:
        for layer, data in before:
            weight_of(layer).data = data
            layer.merged_adapters.clear()


def _may_merge(layer: Linear) -> bool:
    """Return whether a layer is plain, and its weight an unsharded float32 matrix on the CPU."""
    weight = weight_of(layer)
    return (
        not layer.disable_adapters
        and not layer.merged
        and is_plain(layer)
        and type(layer.base_layer) is nn.Linear
        and type(weight) is nn.Parameter
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and weight.shape == (layer.out_features, layer.in_features)
    )
