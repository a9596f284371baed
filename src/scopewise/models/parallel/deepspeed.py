"""DeepSpeed: parameters, gradients and optimizer state sharded over processes for the time of a training."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn


@contextlib.contextmanager
def gathered_afterwards(model: nn.Module, engine: Callable[[], Any]) -> Iterator[None]:
    """Gather a model at the end of the context in which DeepSpeed has it: every process then has all of it.

    A sharded parameter (ZeRO-3) is an empty tensor here, which is saved without an error. What was trained is read from
    the optimizer's float32 copy. After an error everything stays as it is: to gather, all processes have to take part.

    Args:
        model: As it was before DeepSpeed gets it.
        engine: Returns DeepSpeed's engine.
    """
    parameters = list(model.parameters())
    before = [(parameter.dtype, dict(vars(parameter))) for parameter in parameters]
    linear = nn.functional.linear
    yield
    from deepspeed import zero
    from deepspeed.utils import safe_get_full_fp32_param

    gathered = []
    for parameter, (dtype, _) in zip(parameters, before, strict=True):
        trained = safe_get_full_fp32_param(parameter) if parameter.requires_grad else None
        with zero.GatheredParameters([parameter]):
            gathered.append((parameter.detach() if trained is None else trained).to(dtype, copy=True))
    engine().destroy()
    nn.functional.linear = linear  # DeepSpeed replaces torch's for good
    for parameter, value, (_, attributes) in zip(parameters, gathered, before, strict=True):
        parameter.data = value
        vars(parameter).clear()
        vars(parameter).update(attributes)
