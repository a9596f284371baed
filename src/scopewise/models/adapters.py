"""Adapters, and the reference: the model as it was before unlearning, without a second copy of the base."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer, ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from scopewise.config import LoraSection
from scopewise.errors import ConfigError
from scopewise.models.active import active_adapter
from scopewise.models.checked import unmatched_ranks
from scopewise.models.processes import on_deepspeed
from scopewise.models.sharded import is_spread, whole

logger = logging.getLogger("scopewise")

_REFERENCE = "reference"
_PRODUCT = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B")
_PLAIN = (True, False, "gaussian", "eva", "orthogonal")
"""`init_lora_weights` that leave the base's weights alone. PiSSA, OLoRA, LoftQ and others take their product out of them."""

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

    A model that comes with an adapter (a target fine-tuned by LoRA, as in the paper) goes on training the active one. A
    fresh adapter starts as the identity: B is zero, A is random.

    Raises:
        ConfigError: the configuration matches no layer of the model, or PEFT refuses it; or as `trainable_adapter`.
    """
    dropout = config.lora_dropout if isinstance(config, LoraConfig) else 0.0
    if isinstance(model, PeftModel):
        trainable_adapter(model, everything=True)
        return _with_dropout(model, dropout) if _experts(model) else model
    if seed is not None:
        torch.manual_seed(seed)
    config, experts = copy.deepcopy(config), _experts(model)
    if experts and isinstance(config, LoraConfig):
        config.lora_dropout = 0.0
        if config.target_modules == "all-linear":
            config.target_parameters = [*(config.target_parameters or ()), *experts]
            config.exclude_modules = config.exclude_modules or _routers(model)
    if isinstance(config, LoraConfig) and config.target_modules == "all-linear":
        _warn_of_unreached(model, experts)
    try:
        with unmatched_ranks(), warnings.catch_warnings():
            # PEFT does for Conv1D, whose weights are transposed, what it says here that it does.
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")
            adapted: PeftModel = get_peft_model(model, config)  # type: ignore[assignment]
    except ValueError as error:
        raise ConfigError(_refusal(model, config, error)) from None
    return _with_dropout(adapted, dropout) if experts else adapted


def _routers(model: nn.Module) -> list[str] | None:
    """Return the names of layers that only derive from a linear one: Llama 4's router gives two tensors, which LoRA cannot."""
    found = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and type(module).__module__.startswith("transformers.models.")
    ]
    return found or None


def _experts(model: nn.Module) -> list[str]:
    """Return the names, as PEFT matches them, of the parameters that hold the weights of all experts of a layer.

    They are [experts, in, out] or so, and belong to a module `experts`, or to one of its own for each kind (JetMoE): these are
    named with the module, for their own name is that of every weight.
    """
    names: dict[str, None] = {}
    for name, module in model.named_modules():
        owner = name.replace(".base_layer", "")
        for leaf, parameter in module.named_parameters(recurse=False):
            if parameter.dim() != 3:
                continue
            if owner.endswith(".experts"):
                names[leaf] = None
            elif getattr(module, "num_experts", None) == len(parameter):
                names[f"{owner.rpartition('.')[2]}.{leaf}"] = None
    return list(names)


def _warn_of_unreached(model: nn.Module, experts: Sequence[str]) -> None:
    """Say which stacks of matrices get no adapter by `all-linear`: those that a model holds some way of its own."""
    names = [
        f"{name}.{leaf}"
        for name, module in model.named_modules()
        for leaf, parameter in module.named_parameters(recurse=False)
        if parameter.dim() == 3 and min(parameter.shape) > 1 and not isinstance(module, nn.Conv1d)
    ]
    unreached = [name for name in names if not any(name.endswith(f".{expert}") for expert in experts)]
    if unreached:
        logger.warning(
            "lora.target_modules: all-linear; %d tensors that hold several matrices get no adapter, and stay as they are: %s%s",
            len(unreached),
            ", ".join(unreached[:2]),
            ", …" if len(unreached) > 2 else "",
        )


def _with_dropout(model: PeftModel, dropout: float) -> PeftModel:
    """Set the dropout of every layer but the experts'.

    The experts' LoRA is added to weights, not to outputs, so that there is no input to drop from, and PEFT refuses to have
    dropout anywhere in such an adapter. It saves the adapter as one without, which a training that goes on with it sets anew.
    """
    name = active_adapter(model)
    layers = [module for module in model.modules() if isinstance(module, LoraLayer) and name in module.lora_dropout]
    for layer in layers:
        if not isinstance(layer, ParamWrapper):
            layer.lora_dropout[name] = nn.Dropout(dropout) if dropout else nn.Identity()
    if not any(isinstance(layer, ParamWrapper) for layer in layers):
        model.peft_config[name].lora_dropout = dropout  # type: ignore[attr-defined]
    return model


def _refusal(model: nn.Module, config: PeftConfig, error: ValueError) -> str:
    """Say why PEFT adds no adapter, and which layers there are."""
    targets = getattr(config, "target_modules", None)
    if targets is None or "found in the base model" not in str(error):
        reason = str(error).strip().split("\n", 1)[0]
        return f"lora: an adapter on {type(model).__name__}; PEFT refuses it ({reason}); change lora, or set parameters: all"
    given = targets if isinstance(targets, str) else ", ".join(sorted(targets))
    linear = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return f"lora.target_modules: {given}; no layer has such a name; name some of {', '.join(sorted(linear))}"


def trainable_adapter(model: PeftModel, *, everything: bool = False) -> PeftModel:
    """Return the model with its active adapter trainable, also where it was loaded for inference.

    Args:
        model: With one active adapter; changed in place.
        everything: Whether all of the adapter is to be trained. If not, what was chosen by `requires_grad` stays, as long as
            there is anything to train.

    Raises:
        ConfigError: several adapters are active, or the adapter is merged into the base, where nothing trains it.
    """
    name = active_adapter(model)
    if any(isinstance(module, BaseTunerLayer) and module.merged for module in model.modules()):
        raise ConfigError(
            f"model: the adapter {name!r} is merged into the base; merged weights are not trained; call "
            "unmerge_adapter() before"
        )
    if everything or not any(parameter.requires_grad for parameter in model.parameters()):
        model.set_adapter(name)
    return model


def changes_nothing(model: PeftModel) -> bool:
    """Return whether the adapter is the identity: plain LoRA whose every B is zero, as it is when just added."""
    name = active_adapter(model)
    config = model.peft_config[name]
    if not (isinstance(config, LoraConfig) and config.bias == "none" and config.init_lora_weights in _PLAIN):
        return False
    if config.use_dora or config.lora_bias or config.modules_to_save or config.trainable_token_indices:
        return False
    parameters = dict(model.named_parameters())
    zero = [p for n, p in parameters.items() if _is_product(n, name) and _is_zero_at_first(n)]
    others = any(p.requires_grad for n, p in parameters.items() if not _is_product(n, name))
    return bool(zero) and not others and not any(bool(p.any()) for p in zero)


def shares_base(config: PeftConfig, keys: Collection[str]) -> bool:
    """Return whether an adapter can be put on a base that others use: adding or loading it writes nothing to the base.

    Args:
        config: Of the adapter.
        keys: Names of the tensors in its file.
    """
    return (
        isinstance(config, LoraConfig)
        and config.bias == "none"
        and config.init_lora_weights in _PLAIN
        and not (config.modules_to_save or config.trainable_token_indices or config.target_parameters)
        and all(any(f".{part}." in f"{key}." for part in (*_PRODUCT, "lora_magnitude_vector")) for key in keys)
    )


@contextmanager
def frozen_reference(model: nn.Module) -> Iterator[Reference]:
    """Keep the present state of the model as the reference, for as long as the context is open.

    With a fresh adapter the reference is the adapter switched off. With an adapter that was there before, it is that adapter
    as it is now: a copy of what is trained takes its place while the reference is open, whatever the kind of adapter. A
    second adapter of the same configuration would not do: to add one may write to the base (PiSSA, OLoRA), and some kinds
    train parameters of the base itself (biases). Without adapters there is no way but a copy of the model.

    Raises:
        ConfigError: a second copy of the model with FSDP2; an adapter other than LoRA with DeepSpeed.
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
    if on_deepspeed():  # it keeps parameters in memory of its own, where nobody else can exchange them
        with _second_adapter(model) as reference:
            yield reference
        return
    kept = [(p, _local(p).detach().clone()) for p in model.parameters() if p.requires_grad]

    @contextmanager
    def as_it_was() -> Iterator[nn.Module]:
        with _frozen(model), _in_place(kept):
            yield model

    yield as_it_was


def _local(parameter: Tensor) -> Tensor:
    """Return what this process holds of a parameter."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


@contextmanager
def _in_place(kept: list[tuple[nn.Parameter, Tensor]]) -> Iterator[None]:
    """Give parameters other values. Gradients, and graphs that wait for their backward, are not touched."""
    before: list[tuple[nn.Parameter, Tensor]] = []
    try:
        for parameter, value in kept:
            if isinstance(parameter, DTensor):  # FSDP2 gathers from the memory that it knows
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
def _second_adapter(model: PeftModel) -> Iterator[Reference]:
    """Keep the adapter's state in a second one, which is removed again: it holds what is to be forgotten."""
    name = active_adapter(model)
    config = copy.deepcopy(model.peft_config[name])
    if not isinstance(config, LoraConfig) or config.bias != "none":
        raise ConfigError(
            f"model: an adapter of kind {config.peft_type}, or one that trains biases, with DeepSpeed, by a method that "
            "compares with the model before unlearning; LoRA alone is copied there; take ddp.yaml"
        )
    config.init_lora_weights = False  # what is copied needs no initialisation, and some write to the base
    trained = list(model.parameters())
    flags = [p.requires_grad for p in trained]
    model.add_adapter(_REFERENCE, config)
    state = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    set_peft_model_state_dict(model, {k: whole(v).clone() for k, v in state.items()}, adapter_name=_REFERENCE)
    model.set_adapter(name)
    for parameter, flag in zip(trained, flags, strict=True):
        parameter.requires_grad_(flag)

    @contextmanager
    def other_adapter() -> Iterator[nn.Module]:
        with _frozen(model):
            model.set_adapter(_REFERENCE, inference_mode=True)
            try:
                yield model
            finally:
                model.set_adapter(name)

    try:
        yield other_adapter
    finally:
        flags = [p.requires_grad for p in trained]
        model.delete_adapter(_REFERENCE)
        for parameter, flag in zip(trained, flags, strict=True):
            parameter.requires_grad_(flag)


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


def _is_product(parameter: str, adapter: str) -> bool:
    """Return whether a parameter is one of LoRA's matrices of an adapter."""
    return any(f".{part}.{adapter}." in f"{parameter}." for part in _PRODUCT) and not parameter.endswith(".bias")


def _is_zero_at_first(parameter: str) -> bool:
    return ".lora_B." in parameter or ".lora_embedding_A." in parameter


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the adapter's weights and of what is trained besides, or of all parameters without an adapter."""
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
            f"method task_vector: an adapter of kind {kind}; its weights are not linear in what is trained; {advice}"
        )
    state = trained_state(model)
    if any(
        bool(value.any()) for name, value in state.items() if _is_product(name, adapter) and _is_zero_at_first(name)
    ):
        # The result has twice the rank.
        if config.init_lora_weights not in _PLAIN:  # loading it would take another product out of the base
            raise ConfigError(
                f"method task_vector: an adapter initialised by {config.init_lora_weights!r}, which changed the base; the "
                f"sum of two of them cannot be saved as one; {advice}"
            )
        if config.bias != "none":
            raise ConfigError(f"method task_vector: an adapter that trains biases, and was trained before; {advice}")


def scale_change(model: nn.Module, before: dict[str, Tensor], factor: float) -> None:
    """Replace the trained weights θ by θ_before + factor · (θ - θ_before), in float32.

    With LoRA, θ is the product BA. From a fresh adapter (B was zero) the result is factor · B. From one that was there
    before, it is the sum of two products, hence an adapter of twice the rank; exact either way. What an adapter trains
    besides (`modules_to_save`, biases, tokens) is a θ by itself.

    Args:
        model: As trained; changed in place.
        before: Its `trained_state` when training began.
        factor: Negative to go the other way.

    Raises:
        ConfigError: as `check_scalable`; or an adapter that was trained before, with FSDP2.
    """
    check_scalable(model)
    parameters = dict(model.named_parameters())
    adapter = active_adapter(model) if isinstance(model, PeftModel) else None
    products = {name for name in before if adapter is not None and _is_product(name, adapter)}
    fresh = not any(bool(before[name].any()) for name in products if _is_zero_at_first(name))
    if not fresh and is_spread(model):
        raise ConfigError(
            "method task_vector: the target has an adapter already, with FSDP2; the sum of two adapters is not spread; take "
            "ddp.yaml"
        )
    with torch.no_grad():
        for name in before.keys() - products:
            start, parameter = before[name].float(), parameters[name]
            parameter.copy_(start + factor * (parameter.float() - start))
        if fresh:
            for name in filter(_is_zero_at_first, products):
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
    model.add_adapter(_REFERENCE, copy.deepcopy(config))  # PEFT cannot be without any adapter
    model.set_adapter(_REFERENCE)
    model.delete_adapter(adapter)
    model.add_adapter(adapter, config)
    model.set_adapter(adapter)
    model.delete_adapter(_REFERENCE)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in state:
                parameter.copy_(state[name])
            parameter.requires_grad_(flags.get(name, True))
