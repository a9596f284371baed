"""Load a causal LM and its tokenizer by path or hub name, and save what was made of it. safetensors only."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from scopewise.errors import ModelError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    path: str | Path, dtype: str = "auto", revision: str | None = None, *, trainable: bool = False
) -> PreTrainedModel | PeftModel:
    """Load a full model folder or an adapter folder (with the base it names), or a hub name.

    Args:
        path: Folder or hub name. A folder with `adapter_config.json` is an adapter.
        dtype: `auto` (as stored), `float32`, `bfloat16` or `float16`.
        revision: Hub revision of a full model.
        trainable: Whether an adapter's weights require gradients.

    Returns:
        The model in evaluation mode, on the CPU (the trainer and the scorer move it).

    Raises:
        ModelError: nothing loadable there, or pickled weights only.
    """
    adapter = Path(path) / "adapter_config.json"
    if adapter.exists():
        base = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
        return PeftModel.from_pretrained(
            load_model(base, dtype), str(path), is_trainable=trainable, use_safetensors=True
        ).eval()
    if dtype != "auto" and dtype not in DTYPES:
        raise ModelError(f"model.dtype: {dtype!r}; auto, {', '.join(DTYPES)}")
    try:
        model = AutoModelForCausalLM.from_pretrained(
            str(path),
            dtype="auto" if dtype == "auto" else DTYPES[dtype],
            revision=revision or "main",
            use_safetensors=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise ModelError(
            f"model.path: {path}; not a causal language model that can be loaded from safetensors ({reason}); "
            "give a folder or hub name of one"
        ) from error
    return model.eval()


def load_tokenizer(path: str | Path, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model folder, of an adapter folder (its own, or its base's), or of a hub name."""
    adapter = Path(path) / "adapter_config.json"
    if adapter.exists() and not (Path(path) / "tokenizer_config.json").exists():
        path = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path), revision=revision or "main", trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise ModelError(f"model.path: {path}; no tokenizer there ({reason}); give a folder or hub name") from error
    return with_padding(tokenizer)


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
    """Return the accelerator where there is one, else the CPU."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return device or torch.device("cpu")
