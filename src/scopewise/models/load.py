"""Load a causal LM and its tokenizer by path or hub name, and save what was made of it. safetensors only."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, RepositoryNotFoundError
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from scopewise.documents import read_json
from scopewise.errors import ModelError
from scopewise.models.processes import processes

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    path: str | Path,
    dtype: str = "auto",
    revision: str | None = None,
    *,
    trainable: bool = False,
    quantization: str = "none",
    attention: str = "auto",
) -> PreTrainedModel | PeftModel:
    """Load a full model or an adapter (with the base it names), from a folder or by hub name.

    Args:
        path: Folder or hub name. One with `adapter_config.json` is an adapter.
        dtype: `auto` (as stored), `float32`, `bfloat16` or `float16`.
        revision: Hub revision of a full model.
        trainable: Whether an adapter's weights require gradients.
        quantization: `nf4` holds the linear layers of the base in 4 bits (QLoRA); `none` as `dtype` says.
        attention: `auto` takes `transformers`' choice, which is SDPA where the model has it.

    Returns:
        The model in evaluation mode, on the CPU (the trainer and the scorer move it); a quantized one on the accelerator.

    Raises:
        ModelError: nothing loadable there, pickled weights only, or no library for the quantization.
    """
    if dtype != "auto" and dtype not in DTYPES:
        raise ModelError(f"model.dtype: {dtype!r}; auto, {', '.join(DTYPES)}")
    base = adapter_base(path, revision)
    if base is not None:
        return PeftModel.from_pretrained(
            load_model(base, dtype, quantization=quantization, attention=attention),
            str(path),
            is_trainable=trainable,
            use_safetensors=True,
        ).eval()
    local = find_model(path, revision)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            str(path),
            dtype="auto" if dtype == "auto" else DTYPES[dtype],
            revision=revision or "main",
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=local,
            attn_implementation=None if attention == "auto" else attention,
            **_quantized(quantization),
        )
    except ImportError as error:
        raise ModelError(f"model.attention: {attention}; {_first_line(error)}; install it, or set auto") from None
    except (OSError, ValueError) as error:
        reason = _first_line(error)
        raise ModelError(
            f"model: {path}; not a causal language model that can be loaded from safetensors ({reason}); "
            "give a folder or hub name of one"
        ) from error
    return model.eval()


def _quantized(quantization: str) -> dict[str, Any]:
    """Return what `from_pretrained` takes for a quantization."""
    if quantization == "none":
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            f"model.quantization: {quantization}; bitsandbytes is not installed; pip install 'scopewise[quantize]', or set none"
        )
    if default_device().type == "cpu":
        # After a forward in evaluation mode its weights are packed for inference, and a backward then reads rubbish.
        raise ModelError(
            f"model.quantization: {quantization} on the CPU, where bitsandbytes does not train; use a GPU, or set none"
        )
    return {"quantization_config": four_bits(), "device_map": {"": default_device()}}


def four_bits() -> BitsAndBytesConfig:
    """Return QLoRA's setting: NF4 with double quantization, computed in bf16 (arXiv:2305.14314)."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def is_quantized(model: PreTrainedModel | PeftModel) -> bool:
    """Return whether the base is held in 4 bits: such a model stays on the device it was loaded to."""
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    return bool(getattr(base, "is_quantized", False))


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]


def load_tokenizer(path: str | Path, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model, or of an adapter (its own, or its base's)."""
    base = adapter_base(path, revision)
    if base is not None and not (Path(path) / "tokenizer_config.json").exists():
        path, revision = base, None
    local = find_model(path, revision)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(path), revision=revision or "main", trust_remote_code=False, local_files_only=local
        )
    except (OSError, ValueError) as error:
        reason = _first_line(error)
        raise ModelError(f"model: {path}; no tokenizer there ({reason}); give a folder or hub name") from error
    return with_padding(tokenizer)


def find_model(path: str | Path, revision: str | None = None, setting: str = "model") -> bool:
    """Return whether a model is on this machine (a folder, or cached while the hub is out of reach).

    It is asked for once, without the libraries' retries: a wrong name must not take a minute to be refused.

    Args:
        path: Folder or hub name.
        revision: Hub revision.
        setting: The one that names the model, for the sentence.

    Raises:
        ModelError: there is no such folder, and no such model on the hub, or the hub is out of reach; or the folder holds
            none.
    """
    advice = "give a folder or hub name of a causal language model"
    if Path(path).is_dir():
        files = ("config.json", "adapter_config.json", "tokenizer_config.json", "tokenizer.json")
        if not any((Path(path) / file).exists() for file in files):
            raise ModelError(f"{setting}: {path}; a folder without config.json or adapter_config.json; {advice}")
        return True
    name = str(path)
    if Path(path).is_absolute() or name.startswith(".") or name.count("/") > 1:
        raise ModelError(f"{setting}: {path}; no such folder; {advice}")
    reason = "is on the hub neither as a model nor as an adapter"
    for file in ("config.json", "adapter_config.json"):
        try:
            get_hf_file_metadata(hf_hub_url(name, file, revision=revision), timeout=10)
            return False
        except (EntryNotFoundError, RepositoryNotFoundError, HFValidationError):
            continue
        except Exception as error:  # the client raises many kinds; all mean that the hub did not answer
            if isinstance(try_to_load_from_cache(name, file, revision=revision), str):
                return True
            reason = f"is no folder here, and the hub did not answer ({type(error).__name__})"
    raise ModelError(f"{setting}: {path}; {reason}; {advice}")


def adapter_base(path: str | Path, revision: str | None = None) -> str | None:
    """Return the base that an adapter names, from a folder or the hub; None where the path is no adapter."""
    file = Path(path) / "adapter_config.json"
    if not Path(path).is_dir():
        local = find_model(path, revision)
        try:
            file = Path(hf_hub_download(str(path), file.name, revision=revision, local_files_only=local))
        except (EntryNotFoundError, OSError):
            return None
    if not file.exists():
        return None
    return read_json(file, ModelError)["base_model_name_or_path"]


def with_padding(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Return the tokenizer, with EOS for padding where it names none (padding never enters a loss or a measure)."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def save_model(model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, path: str | Path) -> None:
    """Save a folder that `AutoModelForCausalLM` or `AutoPeftModelForCausalLM` loads, with its tokenizer."""
    model.save_pretrained(str(path))
    tokenizer.save_pretrained(str(path))


def default_device() -> torch.device:
    """Return this process's accelerator where there is one, else the CPU (`accelerate launch` gives each its own)."""
    return torch.device(processes().device)
