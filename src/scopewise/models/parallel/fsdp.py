"""FSDP2: a model sharded over the processes of `accelerate launch`, each of which holds its part of every parameter.

A block's parameters are gathered for its forward and its backward, so all processes must run the same number of forwards and
backwards. Gradients are averaged over the processes and sharded like their parameters.
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
    """Return whether models are sharded: there are several processes, started with an FSDP2 configuration.

    Raises:
        ConfigError: the configuration asks for something that is not supported.
    """
    if processes().num_processes == 1 or not parse_flag_from_env("ACCELERATE_USE_FSDP"):
        return False
    if (version := os.environ.get("FSDP_VERSION", "1")) != "2":
        raise ConfigError(f"accelerate: fsdp_version {version}; only 2 is supported; use fsdp2.yaml")
    for setting, variable in _REFUSED.items():
        if parse_flag_from_env(variable):
            advice = "set unlearn.activation_checkpointing" if "checkpointing" in setting else "take fsdp2.yaml"
            raise ConfigError(f"accelerate: {setting} true; only false is supported; {advice}")
    return True


def is_sharded(model: nn.Module) -> bool:
    """Return whether a model is sharded over the processes."""
    return isinstance(model, FSDPModule)


def shard_model(model: Model, *, train: bool = False) -> Model:
    """Move a model to this process's device, or shard it over all processes, block by block.

    Args:
        model: On the CPU, as it was loaded; one that is sharded or moved already is returned as it is.
        train: Whether its trainable parameters will be trained: 16-bit ones become float32 first, since FSDP2 does not allow
            it afterwards (see `float32_masters`).

    Raises:
        ConfigError: it is in 4 bits, which cannot be sharded.
    """
    if is_sharded(model):
        return model
    if not uses_fsdp():
        return model if is_quantized(model) else model.to(default_device())  # type: ignore[arg-type, return-value]
    if is_quantized(model):
        raise ConfigError(
            "model.quantization: nf4, with FSDP2; 4-bit weights cannot be sharded; use ddp.yaml, or set none"
        )
    mesh = init_device_mesh(default_device().type, (processes().num_processes,))
    ends = [model.get_input_embeddings(), lm_head(model)]
    tied = ends[0].weight is ends[1].weight
    # The root is resharded after a forward, too: else its parameters would stay gathered where others read them.
    for module in (*decoder_blocks(model), *([] if tied else ends), model):
        # Block by block: an unsharded block is mapped from its file, once for all processes, until it is cast to float32.
        for parameter in module.parameters():
            if train and parameter.requires_grad and parameter.dtype in LOW:
                parameter.data = parameter.data.float()
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
    return model


def full_tensor(tensor: Tensor) -> Tensor:
    """Return the full tensor of a sharded one. All processes have to call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: Tensor, other: Tensor) -> Tensor:
    """Return a tensor that every process has, moved to the device of `other` and sharded like it."""
    tensor = tensor.to(other.device)
    if not isinstance(other, DTensor):
        return tensor
    return distribute_tensor(tensor, other.device_mesh, other.placements)


def full_state_dict(model: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return what is saved of a model, as full tensors on the CPU; of a model with an adapter, everything but the frozen base.

    A parameter with two names is in it once. All processes have to call this.

    Args:
        model: As `shard_model` returned it.
        dtype: Of the model as it was loaded; float32 masters are rounded to a 16-bit one. Adapters stay float32.
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
    """Copy full tensors, which every process has, into the parameters of a sharded model; the others stay."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in state:
                parameter.copy_(shard_like(state[name], parameter))
