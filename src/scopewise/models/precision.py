"""Number formats: a 16-bit base, trained parameters in float32, and autocast for models that have both."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

LOW = (torch.bfloat16, torch.float16)
"""16-bit floats. A bf16 number has 8 significant bits: a weight of 0.01 ignores any step below 3e-5."""


@contextlib.contextmanager
def float32_masters(model: nn.Module) -> Iterator[None]:
    """Keep parameters that require a gradient in float32 in the context, and round them once at its end.

    An Adam step is about as large as the learning rate. At 1e-5 that is less than half the gap between two neighbouring bf16
    numbers for every weight above 2⁻⁸ = 0.004, so a bf16 weight would not move at all, however many steps are taken. In
    float32 the steps add up. The optimizer keeps its state in the parameters' dtype, so it is float32 as well. Matrices
    outside the region stay in 16 bits, without additional memory.

    LoRA matrices are float32 already (PEFT creates them so on a 16-bit base).
    """
    lowered = [(p, p.dtype) for p in model.parameters() if p.requires_grad and p.dtype in LOW]
    _cast([(parameter, torch.float32) for parameter, _ in lowered])
    try:
        yield
    finally:
        _cast(lowered)


def _cast(wanted: list[tuple[nn.Parameter, torch.dtype]]) -> None:
    for parameter, dtype in wanted:
        parameter.grad = None
        parameter.data = parameter.data.to(dtype)


def mixed_dtype(model: nn.Module) -> torch.dtype | None:
    """Return the 16-bit dtype of a model that also has float32 parameters; None where all have one dtype."""
    low, full = None, False
    for parameter in model.parameters():
        if parameter.dtype in LOW:
            low = parameter.dtype
        full = full or parameter.dtype == torch.float32
        if low is not None and full:
            return low
    return None


def autocast(device: torch.device, dtype: torch.dtype | None) -> contextlib.AbstractContextManager:
    """Return the context of a forward: autocast to a 16-bit dtype, or nothing for None and where autocast is on already.

    The matrix products then run in 16 bits, LoRA's too, whose inputs would otherwise be copied to float32 in every layer.
    """
    if dtype is None or torch.is_autocast_enabled(device.type):
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)
