"""A GGUF file is a model: dequantized once, exactly, and then like any folder."""

from __future__ import annotations

import copy
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from scopewise.config import ModelSection
from scopewise.data.load import load_benchmark
from scopewise.erasure.evidence import digest_folder
from scopewise.erasure.gguf_file import read_gguf, write_gguf
from scopewise.errors import ModelError
from scopewise.models import gguf as gguf_models
from scopewise.models.engine import Engine
from scopewise.models.load import find_model, load_model, load_tokenizer, save_model
from scopewise.models.outline import outline
from scopewise.models.shared import SharedModels
from scopewise.runs.stages import model_identity

pytest.importorskip("gguf")

STORIES = Path(__file__).parents[3] / "shared" / "models" / "stories260K"
TEXTS = [row.answer for row in load_benchmark("builtin").rows[:40]] + [" naïve 1234, 日本 x", "two  spaces  12\n\n\n3"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: Any) -> Path:
    """An empty cache, which no test shares."""
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
    gguf_models._unpacked.cache_clear()
    return tmp_path / "assets" / "scopewise" / "gguf"


@pytest.fixture
def file(tiny: Any, tmp_path: Path) -> Path:
    save_model(*tiny, tmp_path / "folder")
    (tmp_path / "only").mkdir()
    write_gguf(tmp_path / "folder", "q8_0", tmp_path / "only" / "tiny.gguf")
    return tmp_path / "only" / "tiny.gguf"


def test_it_is_loaded_as_it_is_stored(file: Path, tiny: Any) -> None:
    """By the file or by its folder: float32 with the values of the file, and nothing that says it was quantized."""
    stored = dict(read_gguf(file, tiny[0].config))
    for path in (file, file.parent, str(file)):
        model, tokenizer = load_model(path), load_tokenizer(path)
        weights = dict(model.named_parameters())
        assert weights.keys() == stored.keys()
        assert all(torch.equal(weights[name], value) for name, value in stored.items())
        assert model.dtype == torch.float32
        assert not hasattr(model.config, "quantization_config")
        assert [tokenizer(text).input_ids for text in TEXTS] == [tiny[1](text).input_ids for text in TEXTS]
        assert tokenizer.chat_template == tiny[1].chat_template
        assert tokenizer.model_max_length == tiny[0].config.max_position_embeddings
    half = load_model(file, ModelSection(path=str(file), dtype="bfloat16"))
    assert half.dtype == torch.bfloat16


def test_it_is_dequantized_once(file: Path, cache: Path) -> None:
    first = Path(gguf_models.unpacked(file))
    made = (first / "model.safetensors").stat().st_mtime_ns
    gguf_models._unpacked.cache_clear()  # as another process
    assert first == gguf_models.unpacked(file.parent)
    assert (first / "model.safetensors").stat().st_mtime_ns == made
    assert [path for path in cache.iterdir() if path.is_dir()] == [first]
    assert (
        json.loads((first / gguf_models.ORIGIN).read_text())["sha256"] == first.name == digest_folder(file)["tiny.gguf"]
    )
    assert {oct(path.stat().st_mode & 0o777) for path in first.iterdir()} == {"0o600"}


def test_another_file_of_the_same_name_is_another_model(file: Path) -> None:
    before, first = model_identity(file), gguf_models.unpacked(file)
    write_gguf(file.parents[1] / "folder", "f16", file)
    assert gguf_models.unpacked(file) != first
    assert model_identity(file) != before


def test_an_interrupted_one_is_done_again(file: Path, cache: Path) -> None:
    folder = Path(gguf_models.unpacked(file))
    gguf_models._unpacked.cache_clear()
    (folder / gguf_models.ORIGIN).unlink()  # it is written last
    (folder / "model.safetensors").write_bytes(b"")
    load_model(file)


def test_adapters_and_their_models_name_a_folder_that_plain_libraries_load(file: Path, tmp_path: Path) -> None:
    base = load_model(file)
    ids = torch.arange(3, 13)[None]
    adapted = get_peft_model(copy.deepcopy(base), LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    again = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    expected = adapted.eval()(ids).logits
    torch.testing.assert_close(again.eval()(ids).logits, expected)
    torch.testing.assert_close(load_model(tmp_path / "adapter")(ids).logits, expected)
    shared = SharedModels()
    with shared.use(file) as model:
        torch.testing.assert_close(model(ids).logits, base(ids).logits)
    with shared.use(tmp_path / "adapter") as model:
        torch.testing.assert_close(model(ids).logits, expected)
    base.save_pretrained(tmp_path / "saved")
    AutoTokenizer.from_pretrained(gguf_models.unpacked(file)).save_pretrained(tmp_path / "saved")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(plain(ids).logits, base(ids).logits)


def test_an_outline_has_its_shapes(file: Path, tiny: Any) -> None:
    empty = outline(str(file), ModelSection(path=str(file)))
    assert {n: p.shape for n, p in empty.named_parameters()} == {n: p.shape for n, p in tiny[0].named_parameters()}
    assert all(p.is_meta for p in empty.parameters())


def test_digits_are_split_as_smollm_splits_them(tiny: Any, tmp_path: Path) -> None:
    model, tokenizer = tiny
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    save_model(model, tokenizer, tmp_path / "folder")
    write_gguf(tmp_path / "folder", "f16", tmp_path / "m.gguf")
    again = load_tokenizer(tmp_path / "m.gguf")
    texts = [*TEXTS, "a  7", "in 1984,  12.5"]
    assert [again(text).input_ids for text in texts] == [tokenizer(text).input_ids for text in texts]


def test_a_split_that_is_not_known_is_refused(file: Path) -> None:
    """transformers would split as GPT-2 does, and give other tokens without a word."""
    content = file.read_bytes()
    assert content.count(b"gpt-2") == 1
    file.write_bytes(content.replace(b"gpt-2", b"gpt-9"))
    with pytest.raises(ModelError, match=r"^model: \S+; tokenizer\.ggml\.pre: gpt-9;"):
        load_tokenizer(file)


def test_scaled_rotary_frequencies_are_refused(tiny: Any, tmp_path: Path) -> None:
    """They are in a tensor that transformers leaves out, so that positions would be wrong."""
    model, tokenizer = tiny
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    model.config.rope_parameters = {**model.config.rope_parameters, "rope_type": "llama3", **scaling}
    save_model(model, tokenizer, tmp_path / "folder")
    write_gguf(tmp_path / "folder", "f16", tmp_path / "m.gguf")
    with pytest.raises(ModelError, match=r"^model: \S+; scales rotary frequencies"):
        load_model(tmp_path / "m.gguf")


def test_tensors_that_are_not_read_are_refused(tiny: Any, tmp_path: Path) -> None:
    config = LlamaConfig(**{**tiny[0].config.to_dict(), "attention_bias": True})
    save_model(LlamaForCausalLM(config), tiny[1], tmp_path / "folder")
    write_gguf(tmp_path / "folder", "f16", tmp_path / "m.gguf")
    with pytest.raises(ModelError, match=r"^model: \S+; holds \d+ numbers, of which transformers reads \d+;"):
        load_model(tmp_path / "m.gguf")


@pytest.mark.parametrize("content", [b"", b"GGUF", None])
def test_a_damaged_file_is_refused(file: Path, cache: Path, content: bytes | None) -> None:
    file.write_bytes(file.read_bytes()[:-2000] if content is None else content)
    with pytest.raises(ModelError, match=r"^model: \S+tiny\.gguf; not a GGUF file that transformers reads"):
        load_model(file)
    assert not [path for path in cache.iterdir() if path.is_dir()]


def test_several_files_in_a_folder_are_refused(file: Path) -> None:
    os.link(file, file.with_name("other.gguf"))
    with pytest.raises(ModelError, match=r"^model\.path: \S+; a folder with 2 GGUF files \(other\.gguf, tiny\.gguf\)"):
        find_model(file.parent, setting="model.path")
    save_model(*_parts(file), file.parent)  # a model itself: its own weights count
    assert gguf_models.unpacked(file.parent) == file.parent


def _parts(file: Path) -> tuple[Any, Any]:
    return load_model(file), load_tokenizer(file)


def test_without_the_package_a_sentence_says_how_to_install_it(file: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ModelError, match=r"^model: \S+; the package gguf is not installed; pip install"):
        load_model(file)


def test_a_path_that_is_no_file_is_refused_as_any_other(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^model: \S+gone\.gguf; no such folder"):
        load_model(tmp_path / "gone.gguf")


@pytest.mark.skipif(not STORIES.is_dir(), reason="needs ../shared/models/stories260K (see tests/SKIPS.md)")
def test_a_checkpoint_from_elsewhere(tmp_path: Path) -> None:
    """With the byte fallback of sentencepiece; 16 bits hold its weights, up to rounding."""
    write_gguf(STORIES, "f16", tmp_path / "stories.gguf")
    theirs, ours = Engine.load(STORIES), Engine.load(tmp_path / "stories.gguf")
    for text in TEXTS:
        assert ours.tokenizer(text).input_ids == theirs.tokenizer(text).input_ids
    ids = theirs.tokenizer("Once upon a time", return_tensors="pt").input_ids
    torch.testing.assert_close(ours.model(ids).logits, theirs.model(ids).logits, atol=0.05, rtol=0.05)
