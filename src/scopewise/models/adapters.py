"""LoRA adapters, and the reference: the model as it was before unlearning, without a second copy of the base."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn
from transformers import PreTrainedModel

from scopewise.config import LoraSection
from scopewise.errors import ConfigError
from scopewise.models.sharded import is_spread, whole

_REFERENCE = "reference"
_COMBINED = "combined"

Reference = Callable[[], AbstractContextManager[nn.Module]]
"""Opens a context that gives the reference model, frozen and in evaluation mode."""


def lora_config(section: LoraSection | None = None) -> LoraConfig:
    """Return the PEFT configuration of a run file's `lora` section (the paper's Table 7 by default)."""
    section = section or LoraSection()
    targets = section.target_modules
    return LoraConfig(
        r=section.r,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )


def with_adapter(model: PreTrainedModel | PeftModel, config: PeftConfig, seed: int | None = None) -> PeftModel:
    """Return the model with a trainable adapter.

    A model that comes with an adapter (a target fine-tuned by LoRA, as in the paper) goes on training that one. A fresh
    adapter starts as the identity: B is zero, A is random.
    """
    if isinstance(model, PeftModel):
        model.set_adapter("default")
        return model
    if seed is not None:
        torch.manual_seed(seed)
    return get_peft_model(model, copy.deepcopy(config))  # type: ignore[return-value]


def changes_nothing(model: PeftModel) -> bool:
    """Return whether the adapter is the identity: plain LoRA whose every B is zero, as it is when just added."""
    config = model.peft_config["default"]
    plain = (
        isinstance(config, LoraConfig) and config.bias == "none" and not config.use_dora and not config.modules_to_save
    )
    b = [p for n, p in model.named_parameters() if ".lora_B.default." in n or ".lora_embedding_B.default" in n]
    return plain and bool(b) and not any(bool(p.any()) for p in b)


@contextmanager
def frozen_reference(model: nn.Module) -> Iterator[Reference]:
    """Keep the present state of the model as the reference, for as long as the context is open.

    With a fresh adapter the reference is the adapter switched off. With an adapter that was there before, it is a frozen
    copy of that adapter, which is removed again at the end: it holds what is to be forgotten, and must not be saved with
    the result. Without adapters there is no way but a copy of the model.
    """
    if not isinstance(model, PeftModel):
        if is_spread(model):
            raise ConfigError(
                "unlearn.parameters: all, with FSDP2, by a method that compares with the model before unlearning; that would "
                "be a second copy; set lora, or take ddp.yaml"
            )
        frozen = copy.deepcopy(model).requires_grad_(False).eval()

        @contextmanager
        def copied() -> Iterator[nn.Module]:
            with torch.no_grad():
                yield frozen.to(next(model.parameters()).device)

        yield copied
        return
    if changes_nothing(model):

        @contextmanager
        def switched_off() -> Iterator[nn.Module]:
            with _frozen(model), model.disable_adapter():
                yield model

        yield switched_off
        return
    flags = [p.requires_grad for p in model.parameters()]
    trained = list(model.parameters())
    model.add_adapter(_REFERENCE, copy.deepcopy(model.peft_config["default"]))
    state = get_peft_model_state_dict(model, adapter_name="default")
    set_peft_model_state_dict(model, {k: whole(v).clone() for k, v in state.items()}, adapter_name=_REFERENCE)
    model.set_adapter("default")
    for parameter, flag in zip(trained, flags, strict=True):
        parameter.requires_grad_(flag)

    @contextmanager
    def other_adapter() -> Iterator[nn.Module]:
        with _frozen(model):
            model.set_adapter(_REFERENCE, inference_mode=True)
            try:
                yield model
            finally:
                model.set_adapter("default")

    try:
        yield other_adapter
    finally:
        flags = [p.requires_grad for p in trained]
        model.delete_adapter(_REFERENCE)
        for parameter, flag in zip(trained, flags, strict=True):
            parameter.requires_grad_(flag)


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the adapter's weights, or of all parameters of a model without one."""
    if isinstance(model, PeftModel):
        return {k: v.clone() for k, v in get_peft_model_state_dict(model, adapter_name="default").items()}
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def scale_change(model: nn.Module, before: dict[str, Tensor], factor: float) -> None:
    """Replace the trained weights θ by θ_before + factor · (θ - θ_before), in float32.

    With LoRA, θ is the product BA. From a fresh adapter (B was zero) the result is factor · B. From one that was there
    before, it is the sum of two products, hence an adapter of twice the rank; exact either way.

    Args:
        model: As trained; changed in place.
        before: Its `trained_state` when training began.
        factor: Negative to go the other way.
    """
    with torch.no_grad():
        if not isinstance(model, PeftModel):
            for name, parameter in model.named_parameters():
                start = before[name].float()
                parameter.copy_(start + factor * (parameter.float() - start))
            return
        if not any(bool(value.any()) for name, value in before.items() if "lora_B" in name):
            for name, parameter in model.named_parameters():
                if ".lora_B.default." in name:
                    parameter.mul_(factor)
            return
    if is_spread(model):
        raise ConfigError(
            "method task_vector: the target has an adapter already, with FSDP2; the sum of two adapters is not spread; take "
            "ddp.yaml"
        )
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    model.add_adapter(_REFERENCE, copy.deepcopy(model.peft_config["default"]))
    set_peft_model_state_dict(model, before, adapter_name=_REFERENCE)
    model.add_weighted_adapter(["default", _REFERENCE], [factor, 1 - factor], _COMBINED, combination_type="cat")
    model.set_adapter(_COMBINED)
    model.delete_adapter("default")
    model.delete_adapter(_REFERENCE)
    # What is saved is called `default`, as every other adapter.
    model.add_weighted_adapter([_COMBINED], [1.0], "default", combination_type="cat")
    model.set_adapter("default")
    model.delete_adapter(_COMBINED)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(flags.get(name, True))


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; restores mode and `requires_grad` (switching adapters changes both)."""
    flags = [(p, p.requires_grad) for p in model.parameters()]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
