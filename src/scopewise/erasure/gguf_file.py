"""GGUF files for llama.cpp, from an exported folder of a Llama: write, and read back with the weights' names of transformers.

Source: `convert_hf_to_gguf.py` of llama.cpp (class LlamaModel), whose files ours equal in names, shapes, types and bytes of
the tensors. The names are those of the `gguf` package's `TensorNameMap`.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from scopewise.erasure.gguf_tokenizer import tokenizer_fields
from scopewise.errors import ConfigError, ModelError, ResultError
from scopewise.models.load import load_tokenizer
from scopewise.tensor_files import weight_files

GGUF_TYPES: Mapping[str, float] = {"f16": 2.0, "q8_0": 34 / 32, "q4_k_m": 0.65}
"""Types of a GGUF file, with about how many bytes a parameter takes."""
_QUANTIZE = "llama-quantize"
_LARGEST_F16 = 65504.0
_ROPE_FREQS = "rope_freqs.weight"


def check_types(types: Sequence[str]) -> None:
    """Raise ConfigError if one of them is not a key of `GGUF_TYPES`."""
    for name in types:
        if name not in GGUF_TYPES:
            raise ConfigError(f"gguf: {name}; no such type; allowed: {', '.join(GGUF_TYPES)}")


def check_gguf(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, types: Sequence[str]) -> None:
    """Check that GGUF files of a model can be written. Call this before long work.

    Args:
        config: The model's configuration.
        tokenizer: Its tokenizer.
        types: Of `GGUF_TYPES`.

    Raises:
        ConfigError: an unknown type, or a package or tool that is not installed.
        ModelError: another architecture than Llama, or another kind of tokenizer.
    """
    check_types(types)
    if types and importlib.util.find_spec("gguf") is None:
        raise ConfigError(f"gguf: {types[0]}; the package gguf is not installed; pip install 'scopewise[gguf]'")
    if "q4_k_m" in types and shutil.which(_QUANTIZE) is None:
        raise ConfigError(
            f"gguf: q4_k_m; {_QUANTIZE} is not on the PATH; install llama.cpp, or take f16 or q8_0, which need no tool"
        )
    if not types:
        return
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if config.model_type != "llama" or rope not in ("default", "llama3"):
        what = f"rotary embedding {rope}" if config.model_type == "llama" else config.model_type
        raise ModelError(
            f"gguf: {what}; only Llama models are written here; convert the exported folder with llama.cpp's "
            "convert_hf_to_gguf.py"
        )
    tokenizer_fields(tokenizer, config)


def write_gguf(folder: Path, kind: str, file: Path) -> None:
    """Write a GGUF file of an exported folder, one tensor in memory at a time.

    Matrices are stored in the type, or in 16 bits where a row has no multiple of 32 values; vectors in 32 bits; tied
    output embeddings once. `q4_k_m` is made by llama.cpp's `llama-quantize` from an f16 file.

    Args:
        folder: With `config.json`, tokenizer and safetensors.
        kind: Of `GGUF_TYPES`.
        file: To write.

    Raises:
        UserError: as `check_gguf`.
        ResultError: `llama-quantize` failed.
    """
    import gguf

    config, tokenizer = AutoConfig.from_pretrained(str(folder), local_files_only=True), load_tokenizer(folder)
    check_gguf(config, tokenizer, (kind,))
    if kind == "q4_k_m":
        return _quantized(folder, file)
    writer = gguf.GGUFWriter(file, "llama")
    _describe(writer, config, kind)
    for add, value in tokenizer_fields(tokenizer, config):
        getattr(writer, add)(value)
    types: dict[str, Any] = {}
    for name, shape in _shapes(folder, config):
        types[name] = _stored_type(shape, kind)
        bytes_shape = gguf.quant_shape_to_byte_shape(shape, types[name])
        packed = types[name] is gguf.GGMLQuantizationType.Q8_0
        width = np.dtype(np.uint8 if packed else np.float16 if types[name].name == "F16" else np.float32)
        size = int(np.prod(bytes_shape))
        writer.add_tensor_info(name, bytes_shape if packed else shape, width, size, raw_dtype=types[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, tensor in _tensors(folder, config):
        writer.write_tensor_data(gguf.quantize(np.ascontiguousarray(tensor), types[name]))
    writer.close()


def read_gguf(file: Path, config: PreTrainedConfig) -> Iterator[tuple[str, Tensor]]:
    """Yield the name that transformers gives each tensor of a GGUF file, and its values, dequantized to float32.

    Args:
        file: As `write_gguf` wrote it.
        config: Of the model.
    """
    import gguf

    reader, names = gguf.GGUFReader(file), _names(config)
    back = {theirs: ours for ours, theirs in names.items()}
    for tensor in reader.tensors:
        if tensor.name == _ROPE_FREQS:
            continue
        values = torch.from_numpy(np.array(gguf.dequantize(tensor.data, tensor.tensor_type), np.float32))
        name = back[tensor.name]
        yield name, _reordered(name, values, config, back=True)


def check_written(folder: Path, file: Path, kind: str) -> float:
    """Read a GGUF file back, and compare it with the folder's weights.

    For f16 and q8_0, each value must be within the rounding error of its type: 2⁻¹¹ of it, or half a step of its block
    of 32 (a step is a 127th of the largest value). For q4_k_m, whose steps are llama.cpp's choice, only the relative
    error over a tensor is bounded, by 0.25.

    Args:
        folder: That the file was written from.
        file: The GGUF file.
        kind: Its type.

    Returns:
        The root mean square of the errors, as a share of that of the weights.

    Raises:
        ResultError: a tensor is missing, or differs by more than that.
    """
    config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
    written, error, power = dict(read_gguf(file, config)), 0.0, 0.0
    for name, weight in _weights(folder):
        found = written.pop(name, None)
        if found is None or found.shape != weight.shape:
            raise ResultError(f"{file.name}: {name}; missing, or of another shape, when read back; report it as a bug")
        off = (found - weight).abs()
        share = float(off.norm()) / max(float(weight.norm()), 1e-30)
        bad = share > 0.25 if kind == "q4_k_m" else bool((off > rounding_error(weight, kind)).any())
        if bad:
            raise ResultError(f"{file.name}: {name}; differs by {share:.2g} when read back; report it as a bug")
        error, power = error + float(off.double().square().sum()), power + float(weight.double().square().sum())
    if written:
        raise ResultError(
            f"{file.name}: {next(iter(written))}; a tensor that the model does not have; report it as a bug"
        )
    return (error / power) ** 0.5 if power else 0.0


def rounding_error(weight: Float[Tensor, "*shape"], kind: str) -> Float[Tensor, "*shape"]:
    """Return how far each value may be from its stored one: that of 16 bits, or of Q8_0 where the tensor is stored so."""
    half = weight.abs() * 2.0**-11 + 2.0**-25
    if kind != "q8_0" or weight.dim() < 2 or weight.shape[-1] % 32:
        return half
    step = weight.unflatten(-1, (-1, 32)).abs().amax(-1, keepdim=True) / 127
    # The step itself is stored in 16 bits, and up to 127 steps are added.
    error = step * (0.5 + 127 * 2.0**-11 + 1e-4) + 127 * 2.0**-25
    return error.expand(*error.shape[:-1], 32).flatten(-2)


def _quantized(folder: Path, file: Path) -> None:
    """Write a Q4_K_M file with llama.cpp's tool, from an f16 file beside it that is removed again."""
    whole = file.with_suffix(".f16.tmp")
    try:
        write_gguf(folder, "f16", whole)
        command = [_QUANTIZE, str(whole), str(file), "Q4_K_M"]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode or not file.exists():
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            raise ResultError(f"gguf: q4_k_m; {_QUANTIZE} failed ({last}); take f16 or q8_0, or another llama.cpp")
    finally:
        whole.unlink(missing_ok=True)


def _describe(writer: Any, config: Any, kind: str) -> None:
    """Add the model's sizes to a file."""
    import gguf

    head = config.head_dim or config.hidden_size // config.num_attention_heads
    writer.add_name("unlearned model")  # not a name of the folder, which would be a path of this machine
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if kind == "f16" else gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_key_length(head)
    writer.add_value_length(head)


def _stored_type(shape: Sequence[int], kind: str) -> Any:
    from gguf import GGMLQuantizationType as Type

    if len(shape) == 1:
        return Type.F32
    return Type.Q8_0 if kind == "q8_0" and shape[-1] % 32 == 0 else Type.F16


def _names(config: Any) -> dict[str, str]:
    """Return transformers' name → llama.cpp's name of each tensor that a Llama may have."""
    import gguf

    known = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    inner = [f"self_attn.{x}_proj" for x in "qkvo"] + [f"mlp.{x}_proj" for x in ("gate", "up", "down")]
    inner += ["input_layernorm", "post_attention_layernorm"]
    modules = [f"model.layers.{i}.{name}" for i in range(config.num_hidden_layers) for name in inner]
    modules += ["model.embed_tokens", "model.norm", "lm_head"]
    names = [f"{module}.{part}" for module in modules for part in ("weight", "bias")]
    return {name: str(known.get_name(name, try_suffixes=(".weight", ".bias"))) for name in names}


def _weights(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield name and values in float32 of each tensor of a folder."""
    for file in weight_files(folder, ModelError):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  # not a mapping
                yield name, tensors.get_tensor(name).float()


def _shapes(folder: Path, config: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield llama.cpp's name and the shape of each tensor, in the order of `_tensors`."""
    names = _names(config)
    if (factors := _frequency_factors(config)) is not None:
        yield _ROPE_FREQS, tuple(factors.shape)
    for file in weight_files(folder, ModelError):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                yield names[name], tuple(tensors.get_slice(name).get_shape())


def _tensors(folder: Path, config: Any) -> Iterator[tuple[str, Any]]:
    """Yield llama.cpp's name and the values of each tensor, in its order of the rows of queries and keys."""
    names = _names(config)
    if (factors := _frequency_factors(config)) is not None:
        yield _ROPE_FREQS, factors.numpy()
    for name, weight in _weights(folder):
        if weight.dim() > 1 and float(weight.abs().max()) > _LARGEST_F16:
            raise ModelError(
                f"gguf: {name}; has values above {_LARGEST_F16:.0f}, which 16 bits cannot hold; do without"
            )
        yield names[name], _reordered(name, weight, config, back=False).numpy()


def _reordered(name: str, weight: Tensor, config: Any, *, back: bool) -> Tensor:
    """Return a tensor in llama.cpp's order: of a head's queries and keys, the two halves are interleaved there.

    transformers rotates element i with i + d/2, llama.cpp 2i with 2i + 1.
    """
    heads = {".q_proj.": config.num_attention_heads, ".k_proj.": config.num_key_value_heads}
    count = next((count for part, count in heads.items() if part in name), None)
    if count is None:
        return weight
    half = weight.shape[0] // count // 2
    split = (count, half, 2) if back else (count, 2, half)
    return weight.unflatten(0, split).transpose(1, 2).flatten(0, 2).contiguous()


def _frequency_factors(config: Any) -> Tensor | None:
    """Return by which factors the rotary frequencies of a Llama 3 are lower than plain ones; None for plain ones."""
    if config.rope_parameters.get("rope_type", "default") == "default":
        return None
    actual = LlamaRotaryEmbedding(config).inv_freq.float()
    plain = config.rope_parameters["rope_theta"] ** -(torch.arange(len(actual)).float() / len(actual))
    return plain / actual
