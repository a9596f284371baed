"""What is held in which numbers: a 16-bit base, whatever is trained in float32, and autocast where the two meet."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from weakref import WeakKeyDictionary

import torch
from torch import nn

LOW = (torch.bfloat16, torch.float16)
"""16-bit floats. A bf16 number has 8 significant bits: a weight of 0.01 ignores any step below 3e-5."""


@contextlib.contextmanager
def float32_masters(model: nn.Module) -> Iterator[None]:
    """Hold the parameters that require a gradient in float32 while the context is open, and round them once at its end.

    An Adam step is about as large as the learning rate. At 1e-5 that is less than half of what separates two neighbouring
    bf16 numbers for every weight above 2⁻⁸ = 0.004, so a bf16 weight would be exactly what it was after each step, and
    after all of them. Summed in float32 the steps count. The optimiser makes its state in the parameters' dtype, so that
    is float32 as well. Matrices outside a region keep their 16 bits, and cost nothing more.

    LoRA matrices are float32 already (PEFT makes them so on a 16-bit base).
    """
    lowered = [(p, p.dtype) for p in model.parameters() if p.requires_grad and p.dtype in LOW]
    _cast([(parameter, torch.float32) for parameter, _ in lowered])
    try:
        with settled(model):
            yield
    finally:
        _cast(lowered)


def _cast(wanted: list[tuple[nn.Parameter, torch.dtype]]) -> None:
    for parameter, dtype in wanted:
        parameter.grad = None
        parameter.data = parameter.data.to(dtype)


_SETTLED: WeakKeyDictionary[nn.Module, torch.dtype | None] = WeakKeyDictionary()


@contextlib.contextmanager
def settled(model: nn.Module) -> Iterator[None]:
    """Look once at the dtypes of a model, which stay while the context is open: looking takes as long as a small layer."""
    before = {model: _SETTLED[model]} if model in _SETTLED else {}
    _SETTLED[model] = mixed_dtype(model)
    try:
        yield
    finally:
        _SETTLED.pop(model, None)
        if model in before:
            _SETTLED[model] = before[model]


def mixed_dtype(model: nn.Module) -> torch.dtype | None:
    """Return the 16-bit dtype of a model that has float32 parameters besides; None where all are of one kind."""
    low, full = None, False
    for parameter in model.parameters():
        if parameter.dtype in LOW:
            low = parameter.dtype
        full = full or parameter.dtype == torch.float32
        if low is not None and full:
            return low
    return None


def computing(model: nn.Module) -> contextlib.AbstractContextManager:
    """Return the context of a forward: autocast where 16-bit and float32 parameters meet, nothing elsewhere.

    The matrix products then run in 16 bits, LoRA's too, whose inputs would otherwise be copied to float32 in every layer.
    """
    dtype = _SETTLED[model] if model in _SETTLED else mixed_dtype(model)
    device = next(model.parameters()).device.type
    if dtype is None or torch.is_autocast_enabled(device):
        return contextlib.nullcontext()
    return torch.autocast(device, dtype=dtype)
