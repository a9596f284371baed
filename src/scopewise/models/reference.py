"""The reference: the model before unlearning, without a second copy of the base if the model has an adapter."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from scopewise.errors import ConfigError
from scopewise.models.adapters import changes_nothing
from scopewise.models.architecture import active_adapter, evaluation_mode, kept_flags
from scopewise.models.forward import Forward
from scopewise.models.parallel.fsdp import full_tensor, is_sharded
from scopewise.models.parallel.processes import on_deepspeed

REFERENCE = "reference"
"""Name of the second adapter under DeepSpeed."""

Reference = Callable[[], AbstractContextManager[Forward]]
"""Opens a context that gives the forward of the reference model, frozen and in evaluation mode."""


@contextmanager
def frozen_reference(forward: Forward) -> Iterator[Reference]:
    """Keep the model's current state as the reference while the context is open.

    With a fresh adapter, the reference is the model with the adapter disabled. With an adapter that was there before, copies of
    the trained parameters are swapped in while the reference is used, whatever the kind of adapter. A second adapter with the
    same configuration would not do: adding one may change the base (PiSSA, OLoRA), and some kinds train parameters of the base
    itself (biases). Without an adapter the whole model is copied.

    Raises:
        ConfigError: a second copy of the model with FSDP2; an adapter other than LoRA with DeepSpeed.
    """
    model = forward.model
    if not isinstance(model, PeftModel):
        if is_sharded(model):
            raise ConfigError(
                "unlearn.parameters: all, with FSDP2 and a method that needs a reference model; this would be a "
                "second copy of the model; set lora, or use ddp.yaml"
            )
        frozen = copy.deepcopy(model).requires_grad_(False).eval()
        other = forward.on(frozen)

        @contextmanager
        def copied() -> Iterator[Forward]:
            frozen.to(forward.device)
            with torch.no_grad():
                yield other

        yield copied
        return
    if changes_nothing(model):

        @contextmanager
        def switched_off() -> Iterator[Forward]:
            with _frozen(model), model.disable_adapter():
                yield forward

        yield switched_off
        return
    if on_deepspeed():  # it keeps parameters in its own memory, where we cannot swap them
        with _second_adapter(forward) as reference:
            yield reference
        return
    kept = [(p, _local(p).detach().clone()) for p in model.parameters() if p.requires_grad]

    @contextmanager
    def as_it_was() -> Iterator[Forward]:
        with _frozen(model), _in_place(kept):
            yield forward

    yield as_it_was


def _local(parameter: Tensor) -> Tensor:
    """Return this process's shard of a parameter."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


@contextmanager
def _in_place(kept: list[tuple[nn.Parameter, Tensor]]) -> Iterator[None]:
    """Give parameters other values. Gradients, and graphs that wait for their backward, are not touched."""
    before: list[tuple[nn.Parameter, Tensor]] = []
    try:
        for parameter, value in kept:
            if isinstance(parameter, DTensor):  # FSDP2 gathers from its own memory
                local = _local(parameter).detach()
                before.append((parameter, local.clone()))
                local.copy_(value)
            else:
                before.append((parameter, parameter.data))
                parameter.data = value.to(parameter.device, parameter.dtype)
        yield
    finally:
        for parameter, value in before:
            if isinstance(parameter, DTensor):
                _local(parameter).detach().copy_(value)
            else:
                parameter.data = value


@contextmanager
def _second_adapter(forward: Forward) -> Iterator[Reference]:
    """Keep the adapter's state in a second adapter, and remove that at the end, since it contains what is to be forgotten."""
    model: Any = forward.model
    name = active_adapter(model)
    config = copy.deepcopy(model.peft_config[name])
    if not isinstance(config, LoraConfig) or config.bias != "none":
        raise ConfigError(
            f"model: an adapter of kind {config.peft_type}, or one that trains biases, with DeepSpeed and a method "
            "that needs a reference model; only LoRA without biases can be copied there; use ddp.yaml"
        )
    config.init_lora_weights = False  # what is copied needs no initialisation, and some write to the base
    with kept_flags(model):
        model.add_adapter(REFERENCE, config)
        state = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
        set_peft_model_state_dict(model, {k: full_tensor(v).clone() for k, v in state.items()}, adapter_name=REFERENCE)
        model.set_adapter(name)

    @contextmanager
    def other_adapter() -> Iterator[Forward]:
        with _frozen(model):
            model.set_adapter(REFERENCE, inference_mode=True)
            try:
                yield forward
            finally:
                model.set_adapter(name)

    try:
        yield other_adapter
    finally:
        with kept_flags(model):
            model.delete_adapter(REFERENCE)


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; restores mode and `requires_grad` (switching adapters changes both)."""
    with evaluation_mode(model), kept_flags(model), torch.no_grad():
        yield
