"""A model on the meta device, without weights, to check that settings match its modules and that it fits the memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import AutoModelForCausalLM

from scopewise.config import LoraSection, ModelSection, TinyConfig
from scopewise.errors import ConfigError, ModelError
from scopewise.models.adapters import lora_config, with_adapter
from scopewise.models.architecture import active_adapter
from scopewise.models.checked import reading
from scopewise.models.find import is_folder
from scopewise.models.load import adapter_base, load_model, revision_of
from scopewise.models.tiny import tiny_shape

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def outline(source: str, section: ModelSection) -> Any:
    """Return a model as it would be loaded, but without weights; an adapter with its base. None for an adapter on the hub.

    Of a folder the headers of the weight files are compared with the architecture, as `load_model` does it.

    Args:
        source: `tiny`, a folder or a hub name.
        section: How it would be loaded.

    Raises:
        ModelError: as `load_model`.
    """
    if source != "tiny" and not is_folder(source) and adapter_base(source, revision_of(source, section)) is not None:
        return None
    if source == "tiny":
        return _tiny(section.tiny)
    return load_model(source, section, trainable=True, outline=True)


def base_outline(source: str, section: ModelSection) -> Any:
    """Return the `outline` of a model, or of an adapter's base, without any adapter."""
    base = None if source == "tiny" else adapter_base(source, revision_of(source, section))
    model = outline(source if base is None else base, section)
    return model.unload() if isinstance(model, PeftModel) else model


def _tiny(section: TinyConfig) -> Any:
    advice = "lower model.tiny.width, layers or vocab_size"
    with torch.device("meta"), reading("tiny", "no model of these sizes", advice, "model.tiny"):
        return AutoModelForCausalLM.from_config(tiny_shape(section, section.vocab_size))


def check_memory(model: nn.Module, source: str, quantization: str = "none") -> None:
    """Raise ModelError if a model's weights alone exceed the memory of this machine and its accelerators.

    Args:
        model: On the meta device, in the dtype it would be loaded in.
        source: Where it comes from.
        quantization: Of its section; other than none, a parameter has 4 bits.
    """
    count = sum(p.numel() for p in model.parameters())
    size = sum(p.numel() * (p.element_size() if quantization == "none" else 0.5) for p in model.parameters())
    have = machine_memory()
    if size > have:
        what = "lower model.tiny" if source == "tiny" else "correct the sizes in its config.json, or take a smaller one"
        raise ModelError(
            f"model: {source}; {count:.3g} parameters need {size / 1e9:.3g} GB; this machine has {have / 1e9:.3g} GB; {what}"
        )


def machine_memory() -> int:
    """Return the bytes of this machine's memory, and of its accelerators, as far as this process may use them."""
    host = psutil.virtual_memory().total
    for limit in map(Path, _LIMITS):
        if limit.exists() and (text := limit.read_text().strip()).isdigit():
            host = min(host, int(text))
    devices = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    return host + sum(torch.cuda.get_device_properties(i).total_memory for i in devices)


def check_lora(section: LoraSection, model: PeftModel, base: Any, source: str) -> None:
    """Raise ConfigError if a given setting of `lora` differs from that of the adapter that will be trained.

    Args:
        section: Settings; those that were not given are not compared.
        model: The model with its own adapter, which will be trained further.
        base: Its base without adapter, which is changed.
        source: Where the adapter comes from.
    """
    given = section.model_fields_set
    own = model.peft_config[active_adapter(model)]
    if not given:
        return
    advice = "remove it to train the adapter as it is, or set parameters=all, which merges the adapter"
    if not isinstance(own, LoraConfig):
        name, kind = sorted(given)[0], str(getattr(own.peft_type, "value", own.peft_type))
        raise ConfigError(
            f"lora.{name}: {getattr(section, name)!r}; {source} is an adapter of kind {kind}, which has no "
            f"such setting; {advice}"
        )
    wanted_config = lora_config(section)
    for name in LoraSection.model_fields:
        if (
            name == "lora_dropout" and own.target_parameters
        ):  # experts: it is not in the adapter's file, and taken from here
            continue
        if name in given - {"target_modules"} and _unordered(wanted_config, name) != _unordered(own, name):
            raise ConfigError(
                f"lora.{name}: {getattr(section, name)}; {source} is an adapter with {name} {getattr(own, name)}; "
                f"set that, or {advice}"
            )
    if "target_modules" in given:
        wanted, found = _adapted(with_adapter(base, wanted_config)), _adapted(model)
        if wanted != found:
            shown = own.target_modules if isinstance(own.target_modules, str) else sorted(own.target_modules or ())
            raise ConfigError(
                f"lora.target_modules: {section.target_modules!r}, {len(wanted)} layers; {source} is an adapter of "
                f"{len(found)} layers, with target_modules {shown}; {advice}"
            )


def _adapted(model: nn.Module) -> set[str]:
    return {name for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def _unordered(config: LoraConfig, name: str) -> Any:
    """Return a setting of PEFT so that it can be compared: PEFT keeps some lists as sets."""
    value = getattr(config, name)
    return set(value) if isinstance(value, list | tuple) else value
