"""Load and save causal LMs, adapters and tokenizers, by path or hub name. safetensors only."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from peft import PeftModel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from scopewise.config import ModelSection
from scopewise.errors import ModelError
from scopewise.models.architecture import active_adapter, is_quantized
from scopewise.models.checked import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    attach,
    check_config,
    check_loaded,
    check_tokenizer_class,
    check_weights,
    first_line,
    read_adapter_file,
    reading,
    without_false_alarms,
)
from scopewise.models.find import find_model, is_folder
from scopewise.models.gguf import unpacked
from scopewise.models.parallel.processes import default_device


def load_model(
    path: str | Path,
    section: ModelSection | None = None,
    revision: str | None = None,
    *,
    trainable: bool = False,
    dequantized: bool = False,
    outline: bool = False,
) -> PreTrainedModel | PeftModel:
    """Load a full model or an adapter (with the base it names), from a folder or by hub name.

    Args:
        path: Folder, GGUF file or hub name. One with `adapter_config.json` is an adapter.
        section: How to load it: dtype, quantization, attention, and the revision of the section's own path. None: as it is
            stored.
        revision: Hub revision; None takes the section's.
        trainable: Whether an adapter's weights require gradients.
        dequantized: Whether to dequantize a quantized base, so that its (rounded) weights can be changed.
        outline: Whether to read names and shapes alone, from the headers of a folder's files (of a hub name from its
            configuration), and give a model on the meta device.

    Returns:
        The model in evaluation mode, on the CPU (the trainer and the scorer move it); a quantized one on the accelerator.

    Raises:
        ModelError: there is no model, tensors are missing or superfluous, all weights are pickled, or the quantization's
        library is missing.
    """
    section = section or ModelSection()
    revision = revision or revision_of(path, section)
    path = unpacked(path)
    base = adapter_base(path, revision)
    if base is not None:
        unrevised = section.model_copy(update={"revision": None})
        below: Any = load_model(base, unrevised, dequantized=dequantized, outline=outline)
        if isinstance(below, PeftModel):  # an adapter on an adapter: PEFT would activate only one of them
            below = below.merge_and_unload()
        return attach(below, _adapter_folder(path, revision), trainable=trainable).eval()
    if outline and not is_folder(path):
        with (
            torch.device("meta"),
            reading(path, "no model can be built from its config", _advice("causal language model")),
        ):
            config = _config(path, revision or "main", find_model(path, revision), "model")
            return AutoModelForCausalLM.from_config(config).eval()  # type: ignore[no-any-return]
    model: Any = _loaded(
        AutoModelForCausalLM,
        path,
        "model",
        "causal language model",
        dtype="auto" if section.dtype == "auto" else getattr(torch, section.dtype),
        revision=revision or "main",
        attn_implementation=None if section.attention == "auto" else section.attention,
        **({"device_map": "meta"} if outline else quantized(section.quantization)),
    )
    return (model.dequantize() if dequantized and is_quantized(model) else model).eval()


def load_classifier(path: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a sequence classifier (a judge) and its tokenizer, by the same rules as `load_model`."""
    return _loaded(AutoModelForSequenceClassification, path, "evaluate", "classifier").eval(), load_tokenizer(path)


def _loaded(auto: Any, path: str | Path, setting: str, kind: str, revision: str = "main", **settings: Any) -> Any:
    """Load a full model, and check that the folder has all of its tensors."""
    path = unpacked(path, setting)
    local = find_model(path, None if revision == "main" else revision, setting)
    if is_folder(path, setting):
        check_weights(Path(path), setting)
    try:
        with reading(path, f"not a {kind} that can be loaded from safetensors", _advice(kind), setting):
            _config(path, revision, local, setting)
            model, report = auto.from_pretrained(
                str(path),
                revision=revision,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=local,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # refused below, by name
                **settings,
            )
    except ImportError as error:
        if (attention := settings.get("attn_implementation")) is None:  # a quantization that its config names
            raise ModelError(f"{setting}: {path}; {first_line(error)}; install it, or take another model") from None
        raise ModelError(f"model.attention: {attention}; {first_line(error)}; install it, or set auto") from None
    check_loaded(model, report, path)
    return model


def _advice(kind: str) -> str:
    return f"give a folder or hub name of a {kind}"


def _config(path: str | Path, revision: str, local: bool, setting: str) -> Any:
    """Return a model's configuration. Raises ModelError where a number in it is out of range."""
    config = AutoConfig.from_pretrained(str(path), revision=revision, local_files_only=local, trust_remote_code=False)
    check_config(config, path, setting)
    return config


def revision_of(path: str | Path, section: ModelSection) -> str | None:
    """Return the hub revision of a model; a section's revision only applies to its own path."""
    return section.revision if str(path) == section.path else None


def quantized(quantization: str) -> dict[str, Any]:
    """Return the arguments of `from_pretrained` for a quantization. Raises ModelError without a library or device for it."""
    if quantization == "none":
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            f"model.quantization: {quantization}; bitsandbytes is not installed; pip install 'scopewise[quantize]', or set none"
        )
    if default_device().type == "cpu":
        # bitsandbytes packs the weights for inference at the first forward in evaluation mode, and a backward is then wrong.
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


def load_tokenizer(path: str | Path, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model, or of an adapter (its own, or its base's)."""
    path = unpacked(path)
    base = adapter_base(path, revision)
    if base is not None and not (Path(path) / "tokenizer_config.json").exists():
        path, revision = unpacked(base), None
    local = find_model(path, revision)
    if is_folder(path):
        check_tokenizer_class(Path(path))
    with reading(path, "no tokenizer there", "give a folder or hub name of a model with its tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(
            str(path), revision=revision or "main", trust_remote_code=False, local_files_only=local
        )
    return with_padding(tokenizer)


def adapter_base(path: str | Path, revision: str | None = None) -> str | None:
    """Return the base that an adapter names, from a folder or the hub; None if the path is not an adapter."""
    path = unpacked(path)
    if is_folder(path):
        file = Path(path) / ADAPTER_CONFIG
    else:
        local = find_model(path, revision)
        try:
            file = Path(hf_hub_download(str(path), ADAPTER_CONFIG, revision=revision, local_files_only=local))
        except (EntryNotFoundError, OSError):
            return None
    return read_adapter_file(file).base_model_name_or_path if file.exists() else None


def _adapter_folder(path: str | Path, revision: str | None) -> Path:
    """Return the folder of an adapter's files, downloaded from the hub if it is not a local folder."""
    if is_folder(path):
        return Path(path)
    local = find_model(path, revision)
    try:
        return Path(hf_hub_download(str(path), ADAPTER_WEIGHTS, revision=revision, local_files_only=local)).parent
    except (EntryNotFoundError, OSError):
        raise ModelError(
            f"model: {path}; no {ADAPTER_WEIGHTS} there; pickles are never read; give an adapter in safetensors"
        ) from None


def with_padding(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Return the tokenizer, with EOS as padding token where it has none (padding never enters a loss or a metric)."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def save_model(model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, path: str | Path) -> None:
    """Save a folder that `AutoModelForCausalLM` or `AutoPeftModelForCausalLM` loads, with its tokenizer."""
    with without_false_alarms():
        if isinstance(model, PeftModel) and _is_resized(model):
            model.save_pretrained(str(path), save_embedding_layers=True)
        else:
            model.save_pretrained(str(path))
    tokenizer.save_pretrained(str(path))


def _is_resized(model: PeftModel) -> bool:
    """Return whether the base's embeddings were resized since it was saved: the adapter then has to save them, too."""
    base = str(model.peft_config[active_adapter(model)].base_model_name_or_path)
    try:
        saved = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError):  # a base that was never saved
        return False
    embeddings: Any = model.get_input_embeddings()
    return int(saved.get_text_config().vocab_size) != int(embeddings.weight.shape[0])
