"""DeepSpeed: a model whose parameters, gradients and optimizer state are spread over processes for the time of a training."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakSet

from accelerate.utils import extract_model_from_parallel
from torch import nn

_IN_PARTS: WeakSet[nn.Module] = WeakSet()


def in_parts(model: nn.Module) -> bool:
    """Return whether DeepSpeed has the model: its weights are collected when a layer is called, and may go afterwards."""
    return bool(_IN_PARTS) and extract_model_from_parallel(model) in _IN_PARTS


@contextlib.contextmanager
def whole_afterwards(model: nn.Module, engine: Callable[[], Any]) -> Iterator[None]:
    """Make a model whole again that DeepSpeed is given while the context is open: every process then has all of it.

    A parameter in parts is an empty tensor, which is saved without an error. What was trained is read from the optimizer's
    float32 copy. After an error everything stays as it is: to collect parts, all processes have to take part.

    Args:
        model: As it was before DeepSpeed gets it.
        engine: Returns DeepSpeed's engine.
    """
    parameters = list(model.parameters())
    before = [(parameter.dtype, dict(vars(parameter))) for parameter in parameters]
    linear = nn.functional.linear
    _IN_PARTS.add(model)
    yield
    from deepspeed import zero
    from deepspeed.utils import safe_get_full_fp32_param

    whole = []
    for parameter, (dtype, _) in zip(parameters, before, strict=True):
        trained = safe_get_full_fp32_param(parameter) if parameter.requires_grad else None
        with zero.GatheredParameters([parameter]):
            whole.append((parameter.detach() if trained is None else trained).to(dtype, copy=True))
    engine().destroy()
    nn.functional.linear = linear  # DeepSpeed puts its own in the place of torch's, for good
    for parameter, value, (_, attributes) in zip(parameters, whole, before, strict=True):
        parameter.data = value
        vars(parameter).clear()
        vars(parameter).update(attributes)
    _IN_PARTS.discard(model)
