"""A model spread over the processes of `accelerate launch` (FSDP2): each holds its share of every parameter.

A block's parameters are gathered for its forward and its backward, so every process has to forward, and backward, equally
often. Gradients of what is spread are averaged over the processes, and are spread as it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TypeVar

import torch
from accelerate.utils import parse_flag_from_env
from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from scopewise.errors import ConfigError
from scopewise.models.architecture import active_adapter, decoder_blocks, is_quantized, lm_head
from scopewise.models.parallel.processes import default_device, processes
from scopewise.models.precision import LOW

Model = TypeVar("Model", bound=PreTrainedModel | PeftModel)

_REFUSED = {
    "fsdp_offload_params": "FSDP_OFFLOAD_PARAMS",
    "fsdp_cpu_ram_efficient_loading": "FSDP_CPU_RAM_EFFICIENT_LOADING",
    "fsdp_activation_checkpointing": "FSDP_ACTIVATION_CHECKPOINTING",
}


def uses_fsdp() -> bool:
    """Return whether models are to be spread: several processes, started with a configuration of FSDP2.

    Raises:
        ConfigError: the configuration asks for what is not there.
    """
    if processes().num_processes == 1 or not parse_flag_from_env("ACCELERATE_USE_FSDP"):
        return False
    if (version := os.environ.get("FSDP_VERSION", "1")) != "2":
        raise ConfigError(f"accelerate: fsdp_version {version}; 2 alone is supported; take fsdp2.yaml")
    for setting, variable in _REFUSED.items():
        if parse_flag_from_env(variable):
            advice = "set unlearn.gradient_checkpointing" if "checkpointing" in setting else "take fsdp2.yaml"
            raise ConfigError(f"accelerate: {setting} true; false alone is supported; {advice}")
    return True


def is_sharded(model: nn.Module) -> bool:
    """Return whether a model is spread over the processes."""
    return isinstance(model, FSDPModule)


def shard_model(model: Model, *, train: bool = False) -> Model:
    """Put a model where it works: on this process's device, or spread over those of all processes; block by block.

    Args:
        model: On the CPU, as it was loaded, or there already.
        train: Whether its trainable parameters are to be trained: those of 16 bits become float32 before they are spread,
            since FSDP2 does not allow it afterwards (`float32_masters` says why).

    Raises:
        ConfigError: it is in 4 bits, which cannot be spread.
    """
    if is_sharded(model):
        return model
    if not uses_fsdp():
        return model if is_quantized(model) else model.to(default_device())  # type: ignore[arg-type, return-value]
    if is_quantized(model):
        raise ConfigError(
            "model.quantization: nf4, with FSDP2; 4-bit weights are not spread; take ddp.yaml, or set none"
        )
    mesh = init_device_mesh(default_device().type, (processes().num_processes,))
    ends = [model.get_input_embeddings(), lm_head(model)]
    tied = ends[0].weight is ends[1].weight
    # The model itself too gives its parameters back after a forward: else what is found in it would be the gathered ones.
    for module in (*decoder_blocks(model), *([] if tied else ends), model):
        # One by one: until it is spread a block that was loaded as it is stored is a file's, in memory once for all
        # processes, and in float32 it is each process's own.
        for parameter in module.parameters():
            if train and parameter.requires_grad and parameter.dtype in LOW:
                parameter.data = parameter.data.float()
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
    return model


def full_tensor(tensor: Tensor) -> Tensor:
    """Return a tensor in one piece. Every process has to call this where it is spread."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: Tensor, other: Tensor) -> Tensor:
    """Return a tensor that every process has, on the device of another and spread as that one is."""
    tensor = tensor.to(other.device)
    if not isinstance(other, DTensor):
        return tensor
    return distribute_tensor(tensor, other.device_mesh, other.placements)


def full_state_dict(model: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return what is saved of a model, in one piece and on the CPU: of one with adapters, all but the frozen base.

    A parameter that has two names is in it once. Every process has to call this.

    Args:
        model: As `placed` gave it.
        dtype: Of the model as it was loaded. If that has 16 bits, float32 is rounded to it; adapters stay float32.
    """
    adapted, adapter = isinstance(model, PeftModel), active_adapter(model)
    left_out = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    left_out -= {n for n, p in model.named_parameters() if p.requires_grad or f".{adapter}." in f"{n}." or not adapted}
    state = {name: value for name, value in model.state_dict().items() if name not in left_out}
    rounds = dtype in LOW and not adapted
    return {
        n: full_tensor(v).to("cpu", dtype if rounds and v.dtype == torch.float32 else v.dtype) for n, v in state.items()
    }


def load_full_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put parameters in one piece, which every process has, in the place of a spread model's; the others stay."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in state:
                parameter.copy_(shard_like(state[name], parameter))
