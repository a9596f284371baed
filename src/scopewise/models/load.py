"""Load a causal LM and its tokenizer by path or hub name, and save what was made of it. safetensors only."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, RepositoryNotFoundError
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from scopewise.errors import ModelError
from scopewise.models.processes import processes

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    path: str | Path, dtype: str = "auto", revision: str | None = None, *, trainable: bool = False
) -> PreTrainedModel | PeftModel:
    """Load a full model or an adapter (with the base it names), from a folder or by hub name.

    Args:
        path: Folder or hub name. One with `adapter_config.json` is an adapter.
        dtype: `auto` (as stored), `float32`, `bfloat16` or `float16`.
        revision: Hub revision of a full model.
        trainable: Whether an adapter's weights require gradients.

    Returns:
        The model in evaluation mode, on the CPU (the trainer and the scorer move it).

    Raises:
        ModelError: nothing loadable there, or pickled weights only.
    """
    if dtype != "auto" and dtype not in DTYPES:
        raise ModelError(f"model.dtype: {dtype!r}; auto, {', '.join(DTYPES)}")
    base = adapter_base(path, revision)
    if base is not None:
        return PeftModel.from_pretrained(
            load_model(base, dtype), str(path), is_trainable=trainable, use_safetensors=True
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
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise ModelError(
            f"model.path: {path}; not a causal language model that can be loaded from safetensors ({reason}); "
            "give a folder or hub name of one"
        ) from error
    return model.eval()


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
        reason = str(error).strip().split("\n", 1)[0]
        raise ModelError(f"model.path: {path}; no tokenizer there ({reason}); give a folder or hub name") from error
    return with_padding(tokenizer)


def find_model(path: str | Path, revision: str | None = None) -> bool:
    """Return whether a model is on this machine (a folder, or cached while the hub is out of reach).

    It is asked for once, without the libraries' retries: a wrong name must not take a minute to be refused.

    Raises:
        ModelError: there is no such folder, and no such model on the hub, or the hub is out of reach.
    """
    if Path(path).is_dir():
        return True
    name = str(path)
    if Path(path).is_absolute() or name.startswith(".") or name.count("/") > 1:
        raise ModelError(f"model.path: {path}; no such folder; give a folder or hub name of a causal language model")
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
    raise ModelError(f"model.path: {path}; {reason}; give a folder or hub name of a causal language model")


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
    return json.loads(file.read_text(encoding="utf-8"))["base_model_name_or_path"]


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
    """Return this process's accelerator where there is one, else the CPU."""
    return processes().device if torch.accelerator.is_available() else torch.device("cpu")
