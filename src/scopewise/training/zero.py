"""What DeepSpeed cannot do here, refused before anything is trained: most of it would pass in silence, with other numbers.

DeepSpeed takes its step inside the last backward, on an optimizer of its own over flat parts of all parameters.
"""

from __future__ import annotations

import torch
from torch import nn

from scopewise.errors import ConfigError
from scopewise.methods.base import Method
from scopewise.models.parallel.processes import on_deepspeed

_ELSE = "or launch with ddp.yaml"


def check_deepspeed(method: Method, optimizer: str, weight_decay: float, keep_best: bool = False) -> None:
    """Raise ConfigError where DeepSpeed is asked for, and the settings of a training are not for it."""
    if not on_deepspeed():
        return
    if steps := getattr(method, "inner_steps", 0):
        raise ConfigError(
            f"unlearn.method_args.inner_steps: {steps}, under DeepSpeed, which lets nothing else change "
            f"parameters between its steps; set 0, {_ELSE}"
        )
    if not optimizer.startswith("adamw_torch"):
        raise ConfigError(
            f"unlearn.optim: {optimizer}, under DeepSpeed, which may take AdamW in its place; set adamw_torch_fused, "
            f"{_ELSE}"
        )
    if weight_decay and "hidden" in method.needs:
        raise ConfigError(
            f"unlearn.weight_decay: {weight_decay}, under DeepSpeed, which also decays what the method's loss does not reach "
            f"(the layers above the states it reads); set 0, {_ELSE}"
        )
    if keep_best:
        raise ConfigError(
            f"unlearn.guard.keep_best: true, under DeepSpeed, where no process has a whole state to keep; set false, {_ELSE}"
        )


def check_model(model: nn.Module, quantized: bool, in_bf16: bool, decayed_in_part: bool) -> None:
    """Raise ConfigError where DeepSpeed is asked for, and a model or its region is not for it.

    Args:
        model: With its adapter, what is trained marked.
        quantized: Whether its base is held in 4 bits.
        in_bf16: Whether training in bf16 is asked for.
        decayed_in_part: Whether matrices that may change in part are to be decayed there.
    """
    if not on_deepspeed():
        return
    if quantized:
        raise ConfigError(f"model.quantization: under DeepSpeed, which was never run on 4 bits; set none, {_ELSE}")
    wanted = torch.bfloat16 if in_bf16 else torch.float32
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad and parameter.dtype != wanted:
            raise ConfigError(
                f"bf16: {str(in_bf16).lower()}, under DeepSpeed, which holds all weights in one dtype, while {name} is "
                f"{str(parameter.dtype).removeprefix('torch.')}; set bf16 and model.dtype alike (bfloat16 or float32), {_ELSE}"
            )
    if decayed_in_part:
        raise ConfigError(
            "unlearn.weight_decay: above 0, on a region of parts of matrices, under DeepSpeed, which decays whole ones; "
            f"set 0, {_ELSE}"
        )
