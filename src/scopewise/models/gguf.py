"""Use a GGUF file as a model: dequantize it once to a folder that `transformers`, PEFT and the rest of scopewise load."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from tokenizers import normalizers, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from scopewise.bars import bar
from scopewise.errors import ModelError
from scopewise.files import make_folder, remove, seal, write_json
from scopewise.lock import changing
from scopewise.models.checked import check_config, check_loaded, reading
from scopewise.models.find import gguf_file

_ADVICE = "give a GGUF file of a causal language model that transformers reads, or the folder it was made from"
_ROPE = "rope_freqs.weight"
ORIGIN = "gguf.json"
"""File of an unpacked folder that names the GGUF file, with its SHA-256."""


def unpacked(path: str | Path, setting: str = "model") -> str | Path:
    """Return the folder of safetensors that a GGUF file was unpacked to; every other path is returned unchanged.

    A GGUF file is unpacked the first time it is used, to `scopewise/gguf/SHA256` in the folder where the libraries of Hugging
    Face keep such files (`HF_ASSETS_CACHE`, or `assets` in `HF_HOME`). The path may be that of the file, or of a folder with
    one GGUF file that holds no other model.

    Args:
        path: Of a model, as a run file or a command gives it.
        setting: The one that names the model, for the sentence.

    Raises:
        ModelError: as `unpack`; or a folder with several GGUF files and no other model.
    """
    file = gguf_file(path, setting)
    if file is None:
        return path
    about = file.stat()
    return _unpacked(file.resolve(), about.st_size, about.st_mtime_ns, setting)


@functools.lru_cache(maxsize=64)
def _unpacked(file: Path, size: int, modified_ns: int, setting: str) -> Path:
    """Return where a file was unpacked; size and time say whether it is still the file that was read before."""
    check_installed(file, setting)
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    folder = Path(constants.HF_ASSETS_CACHE) / "scopewise" / "gguf" / digest
    make_folder(folder.parent, "HF_ASSETS_CACHE")
    with changing(folder, seconds=3600.0):
        if not (folder / ORIGIN).exists():
            unpack(file, folder, digest, setting)
    return folder


def check_installed(path: str | Path, setting: str = "model") -> None:
    """Raise ModelError if the package that reads GGUF files is not installed."""
    if importlib.util.find_spec("gguf") is None:
        raise ModelError(f"{setting}: {path}; the package gguf is not installed; pip install 'scopewise[gguf]'")


def unpack(file: Path, folder: Path, digest: str, setting: str = "model") -> None:
    """Dequantize a GGUF file to a model folder, in float32, which holds each value of the file exactly.

    The model is in memory twice while it is read, in float32: 8 bytes a parameter. The folder takes 4 bytes a parameter, and
    is replaced as a whole.

    Args:
        file: The GGUF file.
        folder: To write; an existing one is replaced.
        digest: SHA-256 of the file, in hex; it is recorded.
        setting: The one that names the model, for the sentence.

    Raises:
        ModelError: the file is damaged, transformers does not know its architecture, tensors are missing or superfluous, it
            splits text before tokenization in a way that is not known, or it scales rotary frequencies.
    """
    make_folder(folder.parent)
    work = Path(tempfile.mkdtemp(".tmp", f".{folder.name[:24]}.", folder.parent))
    try:
        with (
            bar(1, f"dequantize {file.name}", "file"),
            contextlib.redirect_stderr(io.StringIO()),
        ):  # bars of transformers
            with reading(file, "not a GGUF file that transformers reads", _ADVICE, setting):
                tokenizer = _tokenizer(file, setting)
                model = _model(file, setting)
            tokenizer.model_max_length = int(model.config.get_text_config().max_position_embeddings)
            model.save_pretrained(work)
            tokenizer.save_pretrained(work)
        write_json(work / ORIGIN, {"file": file.name, "sha256": digest, "bytes": file.stat().st_size})
        seal(work)
        if folder.exists():
            remove(folder)
        os.replace(work, folder)
    finally:
        if work.exists():
            remove(work)


def _model(file: Path, setting: str) -> Any:
    """Return the model of a GGUF file in float32, as if it had never been quantized: it can be saved."""
    found: Any = AutoModelForCausalLM.from_pretrained(
        str(file.parent), gguf_file=file.name, dtype=torch.float32, local_files_only=True, output_loading_info=True
    )
    loaded, report = found
    check_loaded(loaded, report, file)
    without = ("quantization_config", "_model_name_or_path")  # the second is a title in the file
    values = {key: value for key, value in loaded.config.to_dict().items() if key not in without}
    config = type(loaded.config).from_dict(values)
    check_config(config, file, setting)
    _check_whole(file, loaded, setting)
    with torch.device("meta"):
        fresh = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    fresh.load_state_dict(loaded.state_dict(), assign=True)
    fresh.tie_weights()
    fresh.generation_config = loaded.generation_config
    return fresh


def _check_whole(file: Path, model: PreTrainedModel, setting: str) -> None:
    """Raise ModelError if transformers has left something out of the model that the file holds.

    That is the scaling of rotary frequencies, and tensors that it does not expect, such as biases of a Llama's attention.
    """
    import gguf

    reader = gguf.GGUFReader(file)
    kinds = [str(field.contents()) for name, field in reader.fields.items() if name.endswith(".rope.scaling.type")]
    scaled = any(kind != "none" for kind in kinds) or any(tensor.name == _ROPE for tensor in reader.tensors)
    rope: Any = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    said = "give the folder that the file was made from"
    if scaled and rope.get("rope_type", "default") == "default":
        raise ModelError(
            f"{setting}: {file}; scales rotary frequencies, which transformers does not read from GGUF; {said}"
        )
    held = sum(int(tensor.n_elements) for tensor in reader.tensors if tensor.name != _ROPE)
    read = sum(tensor.numel() for tensor in {t.data_ptr(): t for t in model.state_dict().values()}.values())
    if held > read:
        raise ModelError(f"{setting}: {file}; holds {held} numbers, of which transformers reads {read}; {said}")


def _tokenizer(file: Path, setting: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a GGUF file, which splits text as llama.cpp does.

    transformers differs in two ways, without a warning. It splits a text of a vocabulary that it does not know as GPT-2 does;
    SmolLM's tokenizer splits off each digit besides. And of a vocabulary like sentencepiece's, it puts no space before a text
    that begins with one.
    """
    tokenizer: Any = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name, local_files_only=True)
    backend = tokenizer.backend_tokenizer
    split = json.loads(backend.to_str())["pre_tokenizer"] or {}
    if split.get("type") == "Metaspace":
        spaces = [normalizers.Replace(" ", "▁")]
        backend.pre_tokenizer = None
        backend.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), *spaces] if _field(file, "tokenizer.ggml.add_space_prefix", True) else spaces
        )
    if split.get("type") != "ByteLevel" or not split.get("use_regex"):
        return tokenizer  # type: ignore[no-any-return]
    name = _field(file, "tokenizer.ggml.pre", "gpt-2")
    if name == "smollm":
        parts = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        backend.pre_tokenizer = pre_tokenizers.Sequence(parts)  # type: ignore[arg-type]
    elif name != "gpt-2":
        raise ModelError(
            f"{setting}: {file}; tokenizer.ggml.pre: {name}; how its tokenizer splits text is not known here, and another "
            "split gives other tokens; give the folder that the file was made from"
        )
    return tokenizer  # type: ignore[no-any-return]


def _field(file: Path, name: str, default: Any) -> Any:
    """Return a value of the file's header."""
    import gguf

    field = gguf.GGUFReader(file).get_field(name)
    return default if field is None else field.contents()
