"""The matrices that a region may choose from, and their orientation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import ParamWrapper
from torch import nn
from transformers.pytorch_utils import Conv1D

from scopewise.errors import ConfigError
from scopewise.models.architecture import active_adapter, device_of, lm_head
from scopewise.models.experts import Stack
from scopewise.region import module_of, parameter_name


@dataclass(frozen=True)
class Matrix:
    """A matrix, or the matrices of all experts of a layer as one.

    Attributes:
        parameter: [outputs inputs], or [inputs outputs]; of experts with a dimension before them.
        inputs: The dimension of its inputs, from the last one: -1 or -2.
        layer: The layer that only multiplies by it; None if it is used in another way, as those of experts are.
        stack: Of experts in one tensor, that tensor.
        before: Of the second matrix of an adapter on such a tensor, its first.
    """

    parameter: Any
    inputs: int
    layer: nn.Module | None
    stack: Stack | None = None
    before: Any = None


def localizable(model: nn.Module) -> dict[str, Matrix]:
    """Return the matrices that a region may choose from, by `parameter_name`, in the model's order.

    With an adapter: the A and B matrices of LoRA. Without: the weights of linear layers but the head, and those of experts
    (embeddings, head, norms, routers, convolutions and biases belong to no module of the paper, and a region never changes
    them).

    Raises:
        ConfigError: there are none.
    """
    found = dict(_adapter(model) if isinstance(model, PeftModel) else _whole(model))
    if not found:
        raise ConfigError(
            "localize: this model has no linear layer and no LoRA matrix to choose from; "
            "name its layers in lora.target_modules"
        )
    return found


def _adapter(model: nn.Module) -> Iterator[tuple[str, Matrix]]:
    adapter = active_adapter(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name.endswith((f".lora_A.{adapter}", f".lora_B.{adapter}")):
            owner: Any = model.get_submodule(name.rpartition(".lora_")[0])
            found = Matrix(module.weight, -1, module)
            if isinstance(owner, ParamWrapper):
                # On experts A and B are multiplied with each other first, and their layers are never called.
                experts, first = owner.get_base_layer(), owner.lora_A[adapter].weight
                found = Matrix(module.weight, -1, None)
                # Where PEFT takes the tensor for the other way round, A is multiplied by what B gives, and not by the inputs.
                if _is_turned(experts) == getattr(experts, "is_transposed", False):
                    stack = Stack(experts, owner.parameter_name, owner.get_param().shape)
                    found = Matrix(module.weight, -1, None, stack, None if module.weight is first else first)
            yield parameter_name(f"{name}.weight", adapter), found


def _whole(model: nn.Module) -> Iterator[tuple[str, Matrix]]:
    head = lm_head(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and module is not head:
            yield (
                parameter_name(f"{name}.weight"),
                Matrix(module.weight, -2 if isinstance(module, Conv1D) else -1, module),
            )
        experts = getattr(module, "num_experts", None)
        for own, parameter in module.named_parameters(recurse=False):
            if parameter.dim() == 3 and parameter.shape[0] == experts:
                stack = Stack(module, own, parameter.shape)
                yield parameter_name(f"{name}.{own}"), Matrix(parameter, -2 if _is_turned(module) else -1, None, stack)


def _is_turned(experts: nn.Module) -> bool:
    """Return whether a module keeps its experts as [experts inputs outputs]; of Llama 4's the library does not say so."""
    return bool(getattr(experts, "is_transposed", type(experts).__name__ == "Llama4TextExperts"))


def matrices(model: nn.Module) -> Mapping[str, nn.Parameter]:
    """Return the matrices a region may choose from, as `localizable` says, by name and in the model's order."""
    return {name: matrix.parameter for name, matrix in localizable(model).items()}


def input_dims(model: nn.Module) -> Mapping[str, int]:
    """Return the dimension (-1 or -2) that runs over the inputs of each of the `matrices`."""
    return {name: matrix.inputs for name, matrix in localizable(model).items()}


def gradient_groups(model: nn.Module, gigabytes: float | None) -> list[list[str]]:
    """Return the names of the matrices in groups, of which two float32 gradients (forget and retain) fit a memory.

    A module is never split, and neighbouring modules stay together, so that the backward of each group stops as early as
    possible.

    Args:
        model: The model.
        gigabytes: The memory, in 10⁹ bytes. None: half of what is free on the accelerator; on the CPU one group.
    """
    found = matrices(model)
    device = device_of(model)
    if gigabytes is None and device.type == "cuda":
        gigabytes = torch.cuda.mem_get_info(device)[0] / 2e9
    modules: dict[str, list[str]] = {}
    for name in found:
        modules.setdefault(module_of(name), []).append(name)
    groups: list[list[str]] = [[]]
    used = 0.0
    for names in modules.values():
        size = sum(2 * 4 * found[name].numel() for name in names) / 1e9
        if groups[-1] and gigabytes is not None and used + size > gigabytes:
            groups.append([])
            used = 0.0
        groups[-1] += names
        used += size
    return groups
