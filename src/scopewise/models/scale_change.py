"""Scale the change that training made: exact task arithmetic on full weights and on LoRA's products."""

from __future__ import annotations

import copy
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from scopewise.errors import ConfigError
from scopewise.models.adapters import PLAIN_INITS, is_product, is_zero_at_first
from scopewise.models.architecture import active_adapter
from scopewise.models.parallel.fsdp import is_sharded

_SECOND = "second"
"""Name of the adapter that stands in while the first one is replaced."""


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the adapter's weights and of other trained parameters, or of all parameters without an adapter."""
    adapter = active_adapter(model) if isinstance(model, PeftModel) else None
    return {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if adapter is None or parameter.requires_grad or f".{adapter}." in f"{name}."
    }


def check_scalable(model: nn.Module) -> None:
    """Raise ConfigError for an adapter that `scale_change` could not change exactly; ask before training."""
    if not isinstance(model, PeftModel):
        return
    adapter = active_adapter(model)
    config: Any = model.peft_config[adapter]
    advice = "take a target with plain LoRA, or set unlearn.parameters: all, which merges the adapter first"
    if not isinstance(config, LoraConfig) or any(
        isinstance(module, LoraLayer) and adapter in module.lora_variant for module in model.modules()
    ):
        kind = (
            "DoRA" if getattr(config, "use_dora", False) else str(getattr(config.peft_type, "value", config.peft_type))
        )
        raise ConfigError(
            f"method task_vector: an adapter of kind {kind}; its weights are not linear in the trained "
            f"parameters; {advice}"
        )
    state = trained_state(model)
    if any(bool(value.any()) for name, value in state.items() if is_product(name, adapter) and is_zero_at_first(name)):
        # The result has twice the rank.
        if config.init_lora_weights not in PLAIN_INITS:  # loading it would take another product out of the base
            raise ConfigError(
                f"method task_vector: an adapter initialised by {config.init_lora_weights!r}, which changed the base; the "
                f"sum of two of them cannot be saved as one; {advice}"
            )
        if config.bias != "none":
            raise ConfigError(f"method task_vector: an adapter that trains biases, and was trained before; {advice}")


def scale_change(model: nn.Module, before: dict[str, Tensor], factor: float) -> None:
    """Replace the trained weights θ by θ_before + factor · (θ - θ_before), in float32.

    With LoRA, θ is the product BA. From a fresh adapter (B was zero) the result is factor · B. From one that was there
    before, it is the sum of two products, hence an adapter of twice the rank; exact either way. Other parameters that an
    adapter trains (`modules_to_save`, biases, tokens) are a θ each.

    Args:
        model: The trained model; changed in place.
        before: Its `trained_state` when training began.
        factor: Negative to move in the opposite direction.

    Raises:
        ConfigError: as `check_scalable`; or an adapter that was trained before, with FSDP2.
    """
    check_scalable(model)
    parameters = dict(model.named_parameters())
    adapter = active_adapter(model) if isinstance(model, PeftModel) else None
    products = {name for name in before if adapter is not None and is_product(name, adapter)}
    fresh = not any(bool(before[name].any()) for name in products if is_zero_at_first(name))
    if not fresh and is_sharded(model):
        raise ConfigError(
            "method task_vector: the target has an adapter already, with FSDP2; the sum of two adapters cannot be "
            "sharded; use ddp.yaml"
        )
    with torch.no_grad():
        for name in before.keys() - products:
            start, parameter = before[name].float(), parameters[name]
            parameter.copy_(start + factor * (parameter.float() - start))
        if fresh:
            for name in filter(is_zero_at_first, products):
                parameters[name].mul_(factor)
        else:
            assert isinstance(model, PeftModel)
            assert adapter is not None
            _sum_of_products(model, adapter, {name: before[name] for name in products}, factor)


def _sum_of_products(model: PeftModel, adapter: str, before: dict[str, Tensor], factor: float) -> None:
    """Give an adapter twice the rank: factor · B A + (1 - factor) · B_before A_before."""
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    state = trained_state(model)
    modules = dict(model.named_modules())
    config: Any = copy.deepcopy(model.peft_config[adapter])
    root = 2**0.5 if config.use_rslora else 1.0  # PEFT's factor alpha / √r is √2 times as much when both are doubled
    for name, was in before.items():
        layer, _, _ = name.partition(".lora_")
        experts: int = getattr(modules[layer], "num_experts", 1)  # of a parameter that holds the weights of all
        if ".lora_A." in name or ".lora_embedding_A." in name:
            parts, axis = [state[name], was], 0
        else:
            parts, axis = [factor / root * state[name], (1 - factor) / root * was], 1
        if experts == 1:
            state[name] = torch.cat(parts, axis)
        elif axis == 0:  # rows are (expert, rank)
            state[name] = torch.cat([part.unflatten(0, (experts, -1)) for part in parts], 1).flatten(0, 1)
        else:  # columns are (rank, expert)
            state[name] = torch.cat([part.unflatten(1, (-1, experts)) for part in parts], 1).flatten(1, 2)
    config.r, config.lora_alpha, config.init_lora_weights = 2 * config.r, 2 * config.lora_alpha, False
    for pattern in (config.rank_pattern, config.alpha_pattern):
        pattern.update({key: 2 * value for key, value in pattern.items()})
    model.add_adapter(_SECOND, copy.deepcopy(config))  # PEFT cannot be without any adapter
    model.set_adapter(_SECOND)
    model.delete_adapter(adapter)
    model.add_adapter(adapter, config)
    model.set_adapter(adapter)
    model.delete_adapter(_SECOND)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in state:
                parameter.copy_(state[name])
            parameter.requires_grad_(flags.get(name, True))
