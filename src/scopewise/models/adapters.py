"""Adapters: adding one, training an existing one, and telling their kinds apart."""

from __future__ import annotations

import copy
import logging
from collections.abc import Collection, Sequence

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer, ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel

from scopewise.config import LoraSection
from scopewise.errors import ConfigError
from scopewise.models.architecture import active_adapter
from scopewise.models.checked import first_line, plain_on_an_outline, without_false_alarms

logger = logging.getLogger("scopewise")

_PRODUCT = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B")
PLAIN_INITS = (True, False, "gaussian", "eva", "orthogonal")
"""`init_lora_weights` that do not change the base's weights. PiSSA, OLoRA, LoftQ and others subtract their product."""


def lora_config(section: LoraSection | None = None) -> LoraConfig:
    """Return the PEFT configuration of a run file's `lora` section (the paper's Table 7 by default).

    Raises:
        ConfigError: PEFT refuses the settings together.
    """
    values = (section or LoraSection()).model_dump(mode="json")
    try:
        return LoraConfig(**values, task_type="CAUSAL_LM")
    except ValueError as error:
        raise ConfigError(f"lora: PEFT refuses these settings ({first_line(error)}); change them") from None


def with_adapter(model: PreTrainedModel | PeftModel, config: PeftConfig, seed: int | None = None) -> PeftModel:
    """Return the model with a trainable adapter.

    An existing adapter (of a target fine-tuned with LoRA, as in the paper) is trained further. A fresh adapter starts as
    the identity: B is zero, A is random.

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
        with without_false_alarms(), plain_on_an_outline(model, config):
            adapted: PeftModel = get_peft_model(model, config)  # type: ignore[assignment]
    except ValueError as error:
        raise ConfigError(_refusal(model, config, error)) from None
    return _with_dropout(adapted, dropout) if experts else adapted


def _routers(model: nn.Module) -> list[str] | None:
    """Return the names of layers whose class derives from `nn.Linear`: Llama 4's router returns two tensors."""
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
    """Warn of 3-D tensors that `all-linear` does not reach: matrices that a model stores in an unusual form."""
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

    The experts' LoRA is added to weights, not to outputs, so there is no input to drop, and PEFT refuses dropout in such an
    adapter. It is saved without dropout; a training that continues it sets the dropout again.
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
    """Return why PEFT adds no adapter, and which layers there are."""
    targets = getattr(config, "target_modules", None)
    if targets is None or "found in the base model" not in str(error):
        name, reason = type(model).__name__, first_line(error)
        return f"lora: an adapter on {name}; PEFT refuses it ({reason}); change lora, or set parameters: all"
    given = targets if isinstance(targets, str) else ", ".join(sorted(targets))
    linear = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return f"lora.target_modules: {given}; no layer has such a name; name some of {', '.join(sorted(linear))}"


def trainable_adapter(model: PeftModel, *, everything: bool = False) -> PeftModel:
    """Return the model with its active adapter trainable, even if it was loaded for inference.

    Args:
        model: With one active adapter; changed in place.
        everything: Whether to train the whole adapter. If not, parameters keep their `requires_grad` if any of them has it.

    Raises:
        ConfigError: several adapters are active, or the adapter is merged into the base.
    """
    name = active_adapter(model)
    if any(isinstance(module, BaseTunerLayer) and module.merged for module in model.modules()):
        raise ConfigError(
            f"model: the adapter {name!r} is merged into the base; merged weights cannot be trained; call "
            "unmerge_adapter() first"
        )
    if everything or not any(parameter.requires_grad for parameter in model.parameters()):
        model.set_adapter(name)
    return model


def changes_nothing(model: PeftModel) -> bool:
    """Return whether the adapter is the identity: plain LoRA whose B matrices are all zero, as when just added."""
    name = active_adapter(model)
    config = model.peft_config[name]
    if not (isinstance(config, LoraConfig) and config.bias == "none" and config.init_lora_weights in PLAIN_INITS):
        return False
    if config.use_dora or config.lora_bias or config.modules_to_save or config.trainable_token_indices:
        return False
    parameters = dict(model.named_parameters())
    zero = [p for n, p in parameters.items() if is_product(n, name) and is_zero_at_first(n)]
    others = any(p.requires_grad for n, p in parameters.items() if not is_product(n, name))
    return bool(zero) and not others and not any(bool(p.any()) for p in zero)


def shares_base(config: PeftConfig, keys: Collection[str]) -> bool:
    """Return whether an adapter can share its base with others: adding or loading it does not change the base.

    Args:
        config: Of the adapter.
        keys: Names of the tensors in its file.
    """
    return (
        isinstance(config, LoraConfig)
        and config.bias == "none"
        and config.init_lora_weights in PLAIN_INITS
        and not (config.modules_to_save or config.trainable_token_indices or config.target_parameters)
        and all(any(f".{part}." in f"{key}." for part in (*_PRODUCT, "lora_magnitude_vector")) for key in keys)
    )


def is_product(parameter: str, adapter: str) -> bool:
    """Return whether a parameter is a LoRA matrix."""
    return any(f".{part}.{adapter}." in f"{parameter}." for part in _PRODUCT) and not parameter.endswith(".bias")


def is_zero_at_first(parameter: str) -> bool:
    """Return whether a matrix of LoRA is zero in a fresh adapter."""
    return ".lora_B." in parameter or ".lora_embedding_A." in parameter
