"""Damage of weight files is told from their headers, with its numbers of bytes, and in none of the library's words."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from scopewise.errors import ModelError
from scopewise.models.load import load_model
from scopewise.tensor_files import damage, fault

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 12345\n"


def written(header: bytes, data: int) -> bytes:
    return struct.pack("<Q", len(header)) + header + b"\0" * data


HEADER = json.dumps({"a": {"dtype": "F32", "shape": [5], "data_offsets": [0, 20]}}).encode()
WHOLE = 8 + len(HEADER) + 20
"""A tensor of five float32: 20 bytes of data behind the header and its length."""


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", ["empty"]),
        (LFS, ["Git LFS", "git lfs pull"]),
        (b"<!DOCTYPE html><html></html>", ["no safetensors file", " 28 bytes"]),
        (b"\0" * 100, ["no safetensors file", " 100 bytes"]),
        (b"abc", ["no safetensors file", " 3 bytes"]),
        (written(HEADER, 20)[:-7], ["cut off", f" {WHOLE - 7} bytes of the {WHOLE} "]),
        (written(HEADER, 20)[:30], ["cut off", " 30 bytes", f" {8 + len(HEADER)}"]),
        (written(HEADER, 24), ["damaged", f" {WHOLE + 4} bytes", f" {WHOLE}"]),
        (written(b'{"a": }' + HEADER, 20), ["damaged"]),
        (written(HEADER.replace(b"F32", b"F33"), 20), ["damaged"]),
        (written(HEADER.replace(b"[5]", b"[6]"), 20), ["damaged"]),
        (written(HEADER.replace(b"[0", b"[4"), 20), ["damaged"]),
        (written(b"{" * 5000, 20), ["damaged"]),
    ],
)
def test_a_fault_is_told_in_bytes(content: bytes, told: list[str], tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(content)
    found = fault(file)
    assert found is not None
    assert all(part in found for part in told), found
    assert "deserializ" not in found


def test_a_whole_file_has_none(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(written(HEADER, 20))
    assert fault(file) is None
    save_file({}, file)
    assert fault(file) is None


@pytest.fixture
def model(tmp_path: Path) -> Path:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=64, **sizes)).save_pretrained(tmp_path / "model", max_shard_size="8KB")
    return tmp_path / "model"


def test_every_file_of_a_model_in_several(model: Path) -> None:
    assert damage(model, ModelError) is None
    second = sorted(model.glob("model-*.safetensors"))[1]
    content = second.read_bytes()
    second.write_bytes(content[:-1])
    with pytest.raises(
        ModelError, match=f"{second.name} .*cut off: .* {len(content) - 1} bytes of the {len(content)} "
    ):
        load_model(model)
    second.unlink()
    with pytest.raises(ModelError, match=f"no {second.name} in it, which model.safetensors.index.json names"):
        load_model(model)
    (model / "model.safetensors.index.json").write_text('{"weight_map": {"a": 3}}')
    with pytest.raises(ModelError, match="weight_map"):
        load_model(model)


def test_an_adapter(model: Path) -> None:
    adapter = model.parent / "adapter"
    base = load_model(model)
    get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")).save_pretrained(
        str(adapter)
    )
    assert damage(adapter, ModelError) is None
    file = adapter / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ModelError, match="cut off"):
        load_model(adapter)
    file.unlink()
    torch.save({}, adapter / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"adapter_model\.bin is a pickle"):
        load_model(adapter)


def test_a_folder_of_neither_and_a_file_of_its_own_name(model: Path, tmp_path: Path) -> None:
    """Nothing is known of where weights stand that a config names itself, nor of a folder that is no model's."""
    assert damage(tmp_path, ModelError) is None
    for file in model.glob("model*"):
        file.unlink()
    assert "no model.safetensors" in str(damage(model, ModelError))
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "transformers_weights": "mine.safetensors"}))
    assert damage(model, ModelError) is None
