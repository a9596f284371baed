"""GGUF files are read back by the package gguf and by transformers: weights, tokens and generations."""

from __future__ import annotations

import copy
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from scopewise.data.load import load_benchmark
from scopewise.erasure.export import agreement, check_room, export, reload
from scopewise.erasure.gguf_file import (
    check_written,
    read_gguf,
    rounding_error,
    write_gguf,
)
from scopewise.erasure.gguf_tokenizer import tokenizer_fields
from scopewise.erasure.model_card import Card
from scopewise.errors import ConfigError, ModelError, ResultError
from scopewise.models.engine import Engine
from scopewise.models.load import save_model

gguf = pytest.importorskip("gguf")

STORIES = Path(__file__).parents[3] / "shared" / "models" / "stories260K"
CARD = Card(request="R1", regulation="gdpr", facts=1, instances=1, method="x", verdict={}, limits=())
TEXTS = [row.answer for row in load_benchmark("builtin").rows[:40]] + [" naïve 1234, 日本 x\n<s>end", "  two  spaces"]
LLAMA_3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.fixture(autouse=True)
def quiet() -> Any:
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


@pytest.fixture(
    params=[
        "tiny",
        pytest.param(
            "stories", marks=pytest.mark.skipif(not STORIES.is_dir(), reason="needs ../shared (see tests/SKIPS.md)")
        ),
    ]
)
def engine(request: Any, tiny: Any) -> Engine:
    """The tiny model with its byte-level BPE, and a checkpoint from elsewhere whose tokenizer is like sentencepiece."""
    return Engine(*tiny) if request.param == "tiny" else Engine.load(STORIES)


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_gguf_is_read_back_by_transformers(engine: Engine, kind: str, tmp_path: Path) -> None:
    made = export(engine, tmp_path / "out", CARD, (kind,))
    assert 0 < made.errors[kind] < {"f16": 3e-4, "q8_0": 1e-2}[kind]
    model = AutoModelForCausalLM.from_pretrained(made.folder, gguf_file=f"model-{kind}.gguf")
    tokenizer = AutoTokenizer.from_pretrained(made.folder, gguf_file=f"model-{kind}.gguf")
    mine = engine.model.state_dict()
    assert set(model.state_dict()) == set(mine)
    for name, value in model.state_dict().items():
        bound = rounding_error(mine[name], kind) if mine[name].dim() > 1 else torch.zeros(())
        assert bool(((value - mine[name]).abs() <= bound).all()), name
    for text in TEXTS:
        assert tokenizer(text).input_ids == engine.tokenizer(text).input_ids
    ours = reload(made, gguf=kind)
    prompts = [tuple(engine.tokenizer(text).input_ids[:8]) for text in TEXTS[:8]]
    assert agreement(Engine(model, engine.tokenizer), ours, prompts, 12) == 1
    if kind == "f16":
        assert agreement(reload(made), ours, prompts, 12) >= 7 / 8


def test_fields_of_the_file(engine: Engine, tmp_path: Path) -> None:
    made = export(engine, tmp_path / "out", CARD, ("q8_0",))
    fields, config = _fields(made.folder / "model-q8_0.gguf"), engine.model.config
    assert fields["general.architecture"] == "llama"
    assert fields["llama.attention.head_count_kv"] == config.num_key_value_heads
    assert fields["llama.rope.dimension_count"] == config.head_dim
    assert fields["tokenizer.ggml.tokens"] == engine.tokenizer.convert_ids_to_tokens(range(config.vocab_size))
    assert fields["tokenizer.ggml.eos_token_id"] == engine.tokenizer.eos_token_id
    assert fields.get("tokenizer.chat_template") == engine.tokenizer.chat_template
    sentencepiece = fields["tokenizer.ggml.model"] == "llama"
    assert fields["tokenizer.ggml.add_bos_token"] is sentencepiece
    assert str(tmp_path) not in str(fields)
    reader = gguf.GGUFReader(made.folder / "model-q8_0.gguf")
    types = {t.name: t.tensor_type.name for t in reader.tensors}
    assert types["output_norm.weight"] == "F32"
    assert types["token_embd.weight"] == "Q8_0"
    assert types["blk.0.ffn_down.weight"] == "F16"  # rows of 80 or 172 values, not of blocks of 32
    assert "output.weight" not in types  # tied


def test_queries_and_keys_are_interleaved(tmp_path: Path) -> None:
    """Two heads of four rows: element i is rotated with i + 2 in transformers, with its neighbour in llama.cpp."""
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    model = LlamaForCausalLM(config)
    attention = model.model.layers[0].self_attn
    with torch.no_grad():
        attention.q_proj.weight.copy_(torch.arange(8.0)[:, None].expand(8, 8))
        attention.k_proj.weight.copy_(torch.arange(4.0)[:, None].expand(4, 8))
    save_model(model, _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), 8), tmp_path / "folder")
    write_gguf(tmp_path / "folder", "f16", tmp_path / "file.gguf")
    tensors = {t.name: t.data for t in gguf.GGUFReader(tmp_path / "file.gguf").tensors}
    assert tensors["blk.0.attn_q.weight"][:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert tensors["blk.0.attn_k.weight"][:, 0].tolist() == [0, 2, 1, 3]
    assert "output.weight" in tensors  # not tied
    back = dict(read_gguf(tmp_path / "file.gguf", config))
    assert torch.equal(back["model.layers.0.self_attn.q_proj.weight"], attention.q_proj.weight)
    assert set(back) == set(model.state_dict())


def test_the_frequencies_of_llama_3(tmp_path: Path) -> None:
    """As convert_hf_to_gguf.py computes them: high frequencies stay, low ones are divided by 8, between them a mixture."""
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        rope_parameters=rope,
    )
    splitter = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(LLAMA_3_SPLIT), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    tokenizer = _byte_level(splitter, 300)
    made = export(Engine(LlamaForCausalLM(config), tokenizer), tmp_path / "out", CARD, ("f16",))
    expected = []
    for i in range(16):
        length = 2 * math.pi * 500000 ** (i / 16)
        smooth = (64 / length - 1) / (4 - 1)
        expected.append(1 if length < 16 else 8 if length > 64 else 1 / ((1 - smooth) / 8 + smooth))
    assert len({round(x, 6) for x in expected}) > 2
    file = made.folder / "model-f16.gguf"
    found = next(t for t in gguf.GGUFReader(file).tensors if t.name == "rope_freqs.weight")
    np.testing.assert_allclose(found.data, expected, rtol=1e-5)
    assert _fields(file)["tokenizer.ggml.pre"] == "llama-bpe"
    read = AutoTokenizer.from_pretrained(made.folder, gguf_file=file.name)
    for text in TEXTS:
        assert read(text).input_ids == tokenizer(text).input_ids


def test_a_bound_is_kept_by_the_package_and_broken_by_one_bit_more(tmp_path: Path, tiny: Any) -> None:
    """Blocks of many sizes: the stored value is within the bound, and the bound is reached by more than half."""
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 2, 64)[:, None]
    for kind, type_ in (("f16", gguf.GGMLQuantizationType.F16), ("q8_0", gguf.GGMLQuantizationType.Q8_0)):
        stored = torch.from_numpy(np.array(gguf.dequantize(gguf.quantize(weight.numpy(), type_), type_)))
        used = (stored - weight).abs() / rounding_error(weight, kind)
        assert 0.5 < float(used.max()) <= 1
    save_model(*tiny, tmp_path / "folder")
    file = tmp_path / "file.gguf"
    write_gguf(tmp_path / "folder", "f16", file)
    assert check_written(tmp_path / "folder", file, "f16") < 3e-4
    tensor = next(t for t in gguf.GGUFReader(file).tensors if t.name == "blk.1.ffn_up.weight")
    content = bytearray(file.read_bytes())
    content[tensor.data_offset + 1] ^= 0x80  # the sign of its first value
    file.write_bytes(content)
    with pytest.raises(ResultError, match=r"^file\.gguf: model\.layers\.1\.mlp\.up_proj\.weight; differs"):
        check_written(tmp_path / "folder", file, "f16")


def test_ids_without_a_token_and_added_tokens_are_marked(tiny: Any) -> None:
    model, tokenizer = tiny
    tokenizer.add_tokens(["<think>"])
    model.resize_token_embeddings(len(tokenizer) + 3)
    fields = dict(tokenizer_fields(tokenizer, model.config))
    count = len(tokenizer)
    assert fields["add_token_list"][count - 1 :] == ["<think>", *(f"[PAD{i}]" for i in range(count, count + 3))]
    kinds = gguf.TokenType
    assert fields["add_token_types"][count - 1 :] == [kinds.USER_DEFINED] + [kinds.UNUSED] * 3
    assert fields["add_token_types"][:4] == [kinds.CONTROL] * 3 + [kinds.NORMAL]


# -- what is refused ------------------------------------------------------------------------------------------------------


def test_what_cannot_be_written_names_what_can(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = tiny
    other = GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=8, n_layer=1, n_head=1))
    with pytest.raises(ModelError, match=r"^gguf: gpt2; .*convert_hf_to_gguf\.py"):
        check_room(other, tmp_path / "out", ("f16",), tokenizer)
    unigram = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.Unigram([("a", 0.0), ("b", -1.0)], 0)))
    with pytest.raises(ModelError, match=r"^gguf: tokenizer of type Unigram; .*convert_hf_to_gguf\.py"):
        check_room(model, tmp_path / "out", ("f16",), unigram)
    digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(False), pre_tokenizers.ByteLevel(False)])
    with pytest.raises(ModelError, match=r"^gguf: a tokenizer that splits .*convert_hf_to_gguf\.py"):
        check_room(model, tmp_path / "out", ("f16",), _byte_level(digits, 300))
    smollm = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)])
    assert dict(tokenizer_fields(_byte_level(smollm, 300), model.config))["add_tokenizer_pre"] == "smollm"
    yarn = copy.deepcopy(model)
    yarn.config.rope_parameters = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 2.0}
    with pytest.raises(ModelError, match=r"^gguf: rotary embedding yarn;"):
        check_room(yarn, tmp_path / "out", ("f16",), tokenizer)
    with pytest.raises(ConfigError, match=r"^gguf: q3; no such type; allowed: f16, q8_0, q4_k_m"):
        check_room(model, tmp_path / "out", ("q3",), tokenizer)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"^gguf: q4_k_m; llama-quantize is not on the PATH;"):
        check_room(model, tmp_path / "out", ("q4_k_m",), tokenizer)


def test_a_tool_that_fails_leaves_nothing(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "bin" / "llama-quantize"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'unknown type' >&2\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent))
    with pytest.raises(ResultError, match=r"^gguf: q4_k_m; llama-quantize failed \(unknown type\);"):
        export(Engine(*tiny), tmp_path / "out", CARD, ("q8_0", "q4_k_m"))
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


@pytest.mark.skipif(shutil.which("llama-quantize") is None, reason="llama.cpp is not installed (see tests/SKIPS.md)")
def test_q4_k_m_by_llama_cpp(tmp_path: Path) -> None:
    """Rows of 256 values, of which llama.cpp's K types make blocks."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300, hidden_size=256, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4
    )
    engine = Engine(LlamaForCausalLM(config), _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), 300))
    made = export(engine, tmp_path / "out", CARD, ("q4_k_m",))
    assert 0.01 < made.errors["q4_k_m"] < 0.15
    file = made.folder / "model-q4_k_m.gguf"
    assert "Q4_K" in {t.tensor_type.name for t in gguf.GGUFReader(file).tensors}
    weights = reload(made, gguf="q4_k_m").model.state_dict()
    assert torch.equal(weights["model.norm.weight"], engine.model.state_dict()["model.norm.weight"])


def _fields(file: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in gguf.GGUFReader(file).fields.items()}


def _byte_level(splitter: Any, size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE of at most `size` tokens (at least the 256 bytes) that splits text in a given way."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = splitter, decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet() if size > 256 else []
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(TEXTS if size > 256 else ["ab"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>")
