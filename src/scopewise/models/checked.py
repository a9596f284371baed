"""Checks of a folder of weights: it must contain all tensors of the model, in safetensors, and no others.

The libraries fill missing tensors with random numbers, read pickles if there is no safetensors file, and raise twenty kinds
of errors on broken files. We raise one `ModelError`.
"""

from __future__ import annotations

import contextlib
import math
import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import transformers
from peft import LoraConfig, PeftConfig, PeftModel, PeftModelForCausalLM, get_peft_model_state_dict
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from scopewise.documents import read_json
from scopewise.errors import ModelError, UserError
from scopewise.tensor_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, damage

_SHOWN = 3
_LAYERS = 2000
"""More than any model has."""
_EPSILON = ("norm_eps", "norm_epsilon")
_ROPE = (
    *("factor", "rope_theta", "original_max_position_embeddings", "short_factor", "long_factor"),
    *("low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow"),
)
"""Rotary settings that are positive."""


class AdapterFile(BaseModel):
    """The fields of `adapter_config.json` that are checked before PEFT reads it."""

    model_config = ConfigDict(extra="ignore", strict=True)

    peft_type: str
    base_model_name_or_path: str
    task_type: str | None = None
    lora_dropout: float | None = Field(None, ge=0, le=1)  # PEFT reads a negative value as none
    lora_alpha: float | None = Field(None, allow_inf_nan=False)
    alpha_pattern: dict[str, Annotated[float, Field(allow_inf_nan=False)]] | None = None


def read_adapter_file(path: Path) -> AdapterFile:
    """Read `adapter_config.json`. Raises ModelError where the file is invalid, or the adapter is not for a causal LM."""
    try:
        found = AdapterFile.model_validate(read_json(path, ModelError, nan=True))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ModelError(f"{path}: {where}: {first['msg'].lower()}; give a folder that PEFT has saved") from None
    if not found.base_model_name_or_path:
        raise ModelError(f"{path}: base_model_name_or_path: empty; name the adapter's base there")
    if found.task_type not in (None, "CAUSAL_LM"):
        raise ModelError(
            f"{path}: task_type: {found.task_type}; only CAUSAL_LM is supported; give an adapter of a language model"
        )
    return found


@contextlib.contextmanager
def reading(path: str | Path, what: str, advice: str, setting: str = "model") -> Iterator[None]:
    """Turn any exception that a library raises while reading a model's files into one sentence, except out-of-memory errors.

    Args:
        path: Folder or hub name.
        what: What the path should contain.
        advice: What to do.
        setting: The setting that names the path.
    """
    try:
        yield
    except (UserError, MemoryError, torch.OutOfMemoryError, ImportError):
        raise
    except (
        Exception
    ) as error:  # files are parsed by Rust, by json, and by attribute access, each with errors of its own
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:2]).rstrip(":;.") or type(error).__name__
        shown = (
            reason if isinstance(error, OSError | ValueError | RuntimeError) else f"{type(error).__name__}: {reason}"
        )
        raise ModelError(f"{setting}: {path}; {what} ({shown}); {advice}") from error


def first_line(error: Exception) -> str:
    """Return the first line of a library's message."""
    return str(error).strip().split("\n", 1)[0]


def check_config(config: PreTrainedConfig, path: str | Path, setting: str = "model") -> None:
    """Raise ModelError where a number in a model's configuration is out of range.

    Otherwise the library would build an absurd number of layers one by one before it finds a weight missing, and would
    scale positions by zero or a negative number.
    """
    text = config.get_text_config()
    layers = getattr(text, "num_hidden_layers", None)
    if isinstance(layers, int) and layers > _LAYERS:
        raise ModelError(f"{setting}: {path}; num_hidden_layers: {layers}; at most {_LAYERS}; correct its config.json")
    for key, value in text.to_dict().items():
        limit = 1.0 if key.endswith(("dropout", "pdrop")) else math.inf if key.endswith(_EPSILON) else None
        if limit is not None and isinstance(value, int | float) and not 0 <= value <= limit:
            allowed = "from 0 to 1" if limit == 1 else "zero or more"
            raise ModelError(f"{setting}: {path}; {key}: {value}; a number {allowed}; correct its config.json")
    parameters: Any = getattr(text, "rope_parameters", None)
    scopes: list[Any] = list(parameters.values()) if _is_nested(parameters) else [parameters]
    for scope in scopes:
        for key in _ROPE if isinstance(scope, dict) else ():
            value = scope.get(key)
            for number in value if isinstance(value, list | tuple) else [value]:
                if isinstance(number, int | float) and not 0 < number < math.inf:
                    raise ModelError(
                        f"{setting}: {path}; rope_parameters.{key}: {number}; positions are scaled by a positive number; "
                        "correct its config.json"
                    )


def _is_nested(parameters: Any) -> bool:
    """Return whether rotary settings are given per kind of layer."""
    return isinstance(parameters, dict) and any(isinstance(value, dict) for value in parameters.values())


def check_tokenizer_class(folder: Path) -> None:
    """Raise ModelError where a folder names an unknown tokenizer class: transformers would silently use another one."""
    file = folder / "tokenizer_config.json"
    name = read_json(file, ModelError, nan=True).get("tokenizer_class") if file.exists() else None
    if not isinstance(name, str):
        return
    plain = name.removesuffix("Fast")
    # transformers 5 dropped classes that only loaded tokenizer.json, such as Bloom's, but kept the models.
    known = (name, plain, f"{plain.removesuffix('Tokenizer')}Config")
    if not any(hasattr(transformers, other) for other in known):
        raise ModelError(
            f"{file}: tokenizer_class: {name!r}; transformers has no such class; copy the file again, or set "
            "PreTrainedTokenizerFast if tokenizer.json is the whole tokenizer"
        )


def check_weights(folder: Path, setting: str = "model") -> None:
    """Raise ModelError where a weight file in a model's or adapter's folder is missing or damaged; reads headers only."""
    if (found := damage(folder, ModelError)) is not None:
        advice = "; save it with safe_serialization=True" if "pickle" in found else "; copy the folder again"
        raise ModelError(f"{setting}: {folder}; {found}{advice}")


def check_loaded(model: PreTrainedModel, report: Mapping[str, Collection[Any]], path: str | Path) -> None:
    """Raise ModelError where the folder lacks a parameter of the model, or has a tensor that is not finite or not used.

    Tensors that the library itself ignores (computed buffers, heads tied to the embeddings, heads of other tasks) are not
    in its report, or belong to no part of this model.

    Args:
        model: The loaded model.
        report: What `from_pretrained` gives with `output_loading_info`.
        path: Where it was loaded from.
    """
    advice = "the folder is incomplete, or its config.json is another model's; copy it again"
    if report["missing_keys"]:
        _refuse(path, "tensors are missing, which would be random numbers", report["missing_keys"], advice)
    if report["mismatched_keys"]:
        shapes = [f"{name} {tuple(given)}, not {tuple(wanted)}" for name, given, wanted in report["mismatched_keys"]]
        _refuse(path, "tensors have another shape than config.json says", shapes, advice)
    own = _belonging(model, report["unexpected_keys"])
    if own:
        _refuse(path, "tensors of the model have no place in it, and would be left out", own, advice)
    if report["error_msgs"]:
        raise ModelError(f"model: {path}; {next(iter(report['error_msgs']))}; {advice}")
    if broken := [name for name, parameter in model.named_parameters() if not _is_finite(parameter.detach())]:
        _refuse(path, "tensors are not finite", broken, "give a model that was trained to its end")


def _is_finite(tensor: Tensor) -> bool:
    """Return whether all numbers of a tensor are finite; also of one without numbers, or in 8 bits or fewer."""
    if tensor.is_meta or not tensor.numel() or not tensor.is_floating_point() or tensor.element_size() == 1:
        return True
    return all(bool(torch.isfinite(end)) for end in torch.aminmax(tensor))  # both are NaN if one number is; no copy


def _belonging(model: nn.Module, unexpected: Collection[str]) -> list[str]:
    """Return the unexpected tensors that look like this model's own weights.

    Those are a layer beyond the last (or of a model that has none at all), a bias or a scale of a layer that has none here,
    and an adapter that was never merged: without them the model computes something else. Other heads, vision towers and the
    like are parts that it does not have.
    """
    layers = {re.sub(r"\.\d+\.", ".#.", name) for name in model.state_dict()}
    leaves = {
        name for name, module in model.named_modules() if not list(module.children()) and list(module.parameters())
    }
    empty = tuple(
        f"{name}." for name, module in model.named_modules() if isinstance(module, nn.ModuleList) and not len(module)
    )
    return [
        name
        for name in unexpected
        if name.startswith(empty)
        or re.sub(r"\.\d+\.", ".#.", name) in layers
        or name.rpartition(".")[0] in leaves
        or ".lora_" in name
        or ".base_layer." in name
    ]


def _refuse(path: str | Path, what: str, keys: Collection[str], advice: str) -> None:
    names = sorted(keys)
    shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    raise ModelError(f"model: {path}; {len(names)} {what}: {shown}; {advice}")


_FALSE_ALARMS = (
    r"Adapter '.*': \d+ LoRA tensor\(s\) have invalid shape: \S+\.lora_B\.bias:",  # the biases that `lora_bias` adds
    "The following (rank|alpha)_pattern keys did not match",  # which it sets itself for experts
    "fan_in_fan_out is set to False",  # it then sets it for Conv1D, as it should
    "Found missing adapter keys",  # `attach` reports them
    ".*copying from a non-meta parameter",  # an outline has no weights
)


@contextlib.contextmanager
def without_false_alarms() -> Iterator[None]:
    """Silence what PEFT warns of while it adds, loads or saves an adapter, although it is as it should be."""
    with warnings.catch_warnings():
        for message in _FALSE_ALARMS:
            warnings.filterwarnings("ignore", message)
        yield


@contextlib.contextmanager
def plain_on_an_outline(model: nn.Module, config: PeftConfig) -> Iterator[None]:
    """Initialize LoRA plainly while an adapter is put on a model without weights: PiSSA and others decompose them."""
    if not (isinstance(config, LoraConfig) and any(p.is_meta for p in model.parameters())):
        yield
        return
    chosen, config.init_lora_weights = config.init_lora_weights, True
    try:
        yield
    finally:
        config.init_lora_weights = chosen


def attach(
    model: PreTrainedModel | PeftModel, folder: Path, name: str = "default", *, trainable: bool = False
) -> PeftModel:
    """Attach a saved adapter to its base, completely or not at all.

    If tokens were added after the base was saved, the base's embeddings are extended to those of the adapter.

    Args:
        model: The base, with adapters or without; changed in place.
        folder: With `adapter_config.json` and `adapter_model.safetensors`.
        name: The adapter's name on the model.
        trainable: Whether its weights require gradients.

    Raises:
        ModelError: a file is missing or broken, or its tensors are not those that the adapter has on this base.
    """
    read_adapter_file(folder / ADAPTER_CONFIG)
    advice = "give an adapter of this base, as PEFT has saved it"
    absent = "tensors of the adapter are missing, which would be random numbers"
    with reading(folder, "not an adapter that can be loaded", advice), without_false_alarms():
        shapes = tensor_shapes(folder)
        config = PeftConfig.from_pretrained(str(folder))
        config.inference_mode = not trainable
        if config.is_prompt_learning:
            raise ModelError(
                f"model: {folder}; an adapter of kind {config.peft_type.value}, which adds tokens before the "
                "prompt, so that all positions shift; give one that changes weights, such as LoRA"
            )
        with plain_on_an_outline(model, config):
            if isinstance(model, PeftModel):
                model.add_adapter(name, config)
            else:
                _lengthen(model, shapes)
                model = PeftModelForCausalLM(model, config, name)
        wanted = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
        missing, others = wanted.keys() - shapes.keys(), shapes.keys() - wanted.keys()
        # Where both differ, the file may use the names of an earlier PEFT version; then PEFT's own report decides.
        if missing and not others:
            _refuse(folder, absent, missing, advice)
        wrong = [
            f"{key} {shapes[key]}, not {tuple(wanted[key].shape)}"
            for key in wanted.keys() & shapes.keys()
            if shapes[key] != tuple(wanted[key].shape) and wanted[key].numel()
        ]
        if wrong:
            _refuse(folder, "tensors of the adapter have another shape than on this base", wrong, advice)
        result = model.load_adapter(str(folder), name, is_trainable=trainable)
        if result.missing_keys:
            _refuse(folder, absent, result.missing_keys, advice)
        if result.unexpected_keys:
            _refuse(
                folder, "tensors have no place in the adapter, and would be left out", result.unexpected_keys, advice
            )
    return model


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return name → shape of an adapter's tensors. Raises ModelError where they are missing, pickled, or not finite."""
    check_weights(folder)
    with safe_open(folder / ADAPTER_WEIGHTS, "pt") as tensors:  # type: ignore[no-untyped-call]
        names = tensors.keys()
        broken = [name for name in names if not _is_finite(tensors.get_tensor(name))]
        if broken:
            _refuse(
                folder, "tensors of the adapter are not finite", broken, "give an adapter that was trained to its end"
            )
        return {name: tuple(tensors.get_slice(name).get_shape()) for name in names}


def _lengthen(model: PreTrainedModel, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Resize the base's embeddings to those of an adapter that was saved with added tokens."""
    ends = {id(model.get_input_embeddings()), id(model.get_output_embeddings())}
    names = [name for name, module in model.named_modules() if id(module) in ends]
    keys = [f"base_model.model.{name}.{part}weight" for name in names for part in ("", "base_layer.")]
    rows = {shapes[key][0] for key in keys if key in shapes}
    embeddings: Any = model.get_input_embeddings()
    if len(rows) == 1 and (count := rows.pop()) != embeddings.weight.shape[0]:
        model.resize_token_embeddings(count, mean_resizing=False)
