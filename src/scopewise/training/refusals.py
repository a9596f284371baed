"""Refuse training settings before training: an optimiser without its library, and what sharded training does not support.

DeepSpeed takes its step inside the last backward, with its own optimizer over flat shards of all parameters. Most of what it
does not support would silently give wrong numbers.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import nn
from transformers.training_args import OptimizerNames

from scopewise.errors import ConfigError
from scopewise.methods.base import Method
from scopewise.models.parallel.fsdp import uses_fsdp
from scopewise.models.parallel.processes import on_deepspeed
from scopewise.registry import nearest

_LIBRARIES = {
    "galore": ("galore_torch", "galore-torch"),
    "apollo": ("apollo_torch", "apollo-torch"),
    "lomo": ("lomo_optim", "lomo-optim"),
    "grokadamw": ("grokadamw", "grokadamw"),
    "schedule_free": ("schedulefree", "schedulefree"),
    "stable_adamw": ("optimi", "torch-optimi"),
    "anyprecision": ("torchdistx", "torchdistx"),
    "adamw_torch_8bit": ("torchao", "torchao"),
    "adamw_torch_4bit": ("torchao", "torchao"),
    "npu": ("torch_npu", "torch-npu"),
    "xla": ("torch_xla", "torch-xla"),
    **dict.fromkeys(("paged", "8bit", "bnb", "lion", "ademamix"), ("bitsandbytes", "'scopewise[quantize]'")),
}
"""Part of an optimiser's name → the module it needs and the package to install; the first match counts."""


def check_optimizer(name: str, where: str) -> None:
    """Raise ConfigError if `transformers` does not know the optimiser, or its library is not installed."""
    known = [str(option.value) for option in OptimizerNames]
    if name not in known:
        raise ConfigError(
            f"{where}.optim: {name!r}; use a name that transformers knows, such as {known[0]}.{nearest(name, known)}"
        )
    module, package = next((needed for part, needed in _LIBRARIES.items() if part in name), ("torch", "torch"))
    if importlib.util.find_spec(module) is None:
        raise ConfigError(
            f"{where}.optim: {name}; {module} is not installed; pip install {package}, or use adamw_torch_fused"
        )


_ELSE = "or launch with ddp.yaml"


def check_deepspeed(method: Method, optimizer: str, weight_decay: float, keep_best: bool = False) -> None:
    """Raise ConfigError under DeepSpeed if it does not support the training settings."""
    if not on_deepspeed():
        return
    if (inner := method.inner) is not None:
        raise ConfigError(
            f"unlearn.method_args.inner_steps: {inner.count}, under DeepSpeed, where nothing else may change parameters "
            f"between steps; set 0, {_ELSE}"
        )
    if not optimizer.startswith("adamw_torch"):
        raise ConfigError(
            f"unlearn.optim: {optimizer}, under DeepSpeed, which may replace it with AdamW; set adamw_torch_fused, "
            f"{_ELSE}"
        )
    if weight_decay and "hidden" in method.needs:
        raise ConfigError(
            f"unlearn.weight_decay: {weight_decay}, under DeepSpeed, which also decays parameters without a "
            f"gradient (the layers above the hidden states in the loss); set 0, {_ELSE}"
        )
    if keep_best:
        raise ConfigError(
            "unlearn.early_stopping.keep_best: true, under DeepSpeed, where no process has the full weights; set "
            f"false, {_ELSE}"
        )


def check_wrappers(wrapper: str, fp16: bool = False) -> None:
    """Raise ConfigError where a wrapper, which moves parameters inside a step, is not supported."""
    where = f"unlearn.method: with the wrapper {wrapper}"
    if on_deepspeed() or uses_fsdp():
        raise ConfigError(
            f"{where}, on a sharded model, whose parameters only the optimizer moves; launch with ddp.yaml"
        )
    if fp16:
        raise ConfigError(f"{where}, in fp16, where gradients are scaled; set bf16, or neither")


def check_model(model: nn.Module, quantized: bool, in_bf16: bool, decayed_in_part: bool) -> None:
    """Raise ConfigError under DeepSpeed if it does not support the model or its region.

    Args:
        model: With its adapter; `requires_grad` marks what is trained.
        quantized: Whether its base is quantized to 4 bits.
        in_bf16: Whether training is in bf16.
        decayed_in_part: Whether weight decay applies to matrices partly in the region.
    """
    if not on_deepspeed():
        return
    if quantized:
        raise ConfigError(
            f"model.quantization: under DeepSpeed, which we have not tested with 4 bits; set none, {_ELSE}"
        )
    wanted = torch.bfloat16 if in_bf16 else torch.float32
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad and parameter.dtype != wanted:
            raise ConfigError(
                f"bf16: {str(in_bf16).lower()}, under DeepSpeed, which holds all weights in one dtype, while {name} "
                f"is {str(parameter.dtype).removeprefix('torch.')}; set bf16 and model.dtype to the same (bfloat16 "
                f"or float32), {_ELSE}"
            )
    if decayed_in_part:
        raise ConfigError(
            "unlearn.weight_decay: above 0, for a region with parts of matrices, under DeepSpeed, which decays "
            f"whole matrices; set 0, {_ELSE}"
        )
