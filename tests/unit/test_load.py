"""A model is loaded whole or refused: nothing is filled with random numbers, nothing is unpickled, one sentence says why."""

from __future__ import annotations

import ast
import copy
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

from scopewise.config import ModelSection
from scopewise.errors import ModelError, UserError
from scopewise.models import load
from scopewise.models.judges import class_probabilities
from scopewise.models.load import load_model, load_tokenizer, save_model
from scopewise.models.shared import SharedModels

SIZES = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
IDS = torch.arange(3, 13)[None]
WEIGHTS, ADAPTER = "model.safetensors", "adapter_model.safetensors"


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


@pytest.fixture
def base(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SIZES)).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def adapter(base: Path, **settings: Any) -> Any:
    given = {"r": 2, "target_modules": ["q_proj", "up_proj"], "init_lora_weights": False, "task_type": "CAUSAL_LM"}
    return get_peft_model(load_model(base), LoraConfig(**{**given, **settings}))


@pytest.fixture
def saved(base: Path) -> Path:
    torch.manual_seed(1)
    adapter(base).save_pretrained(str(base.parent / "adapter"))
    return base.parent / "adapter"


def edit(file: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def configure(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def half(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for i, (name, value) in enumerate(sorted(tensors.items())) if i % 2}


def without_head(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in tensors.items() if "lm_head" not in name}


def and_also(**more: torch.Tensor) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda tensors: {**tensors, **more}


# -- weights that are not there -------------------------------------------------------------------------------------


def test_half_of_the_tensors(base: Path) -> None:
    """21 tensors (embedding, head, norm, two layers of nine): every other one, from the second, is kept: 11 are missing."""
    edit(base / WEIGHTS, half)
    with pytest.raises(ModelError, match=r"11 tensors are missing.*lm_head\.weight, .*…"):
        load_model(base)
    with pytest.raises(ModelError, match="11 tensors are missing"):
        SharedModels().load(base)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_are_not_finite(base: Path, wrong: float, dtype: torch.dtype) -> None:
    """One number of one tensor."""
    name = "model.norm.weight"

    def one_number(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        found = {key: value.to(dtype) for key, value in tensors.items()}
        found[name][3] = wrong
        return found

    edit(base / WEIGHTS, one_number)
    with pytest.raises(ModelError, match=rf"1 tensors are not finite: {name}"):
        load_model(base)


def test_a_missing_head_is_random_unless_it_is_tied(base: Path) -> None:
    edit(base / WEIGHTS, without_head)
    with pytest.raises(ModelError, match=r"1 tensors are missing.*lm_head\.weight"):
        load_model(base)
    configure(base / "config.json", tie_word_embeddings=True)
    model = load_model(base)
    assert torch.equal(model.lm_head.weight, load_file(base / WEIGHTS)["model.embed_tokens.weight"])


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"num_hidden_layers": 0}, r"18 tensors of the model have no place.*layers\.0\."),
        ({"num_hidden_layers": 1}, r"9 tensors of the model have no place.*layers\.1\."),
        ({"intermediate_size": 20}, r"6 tensors have another shape.*mlp\.down_proj\.weight \(16, 24\), not \(16, 20\)"),
        ({"vocab_size": 60}, r"2 tensors have another shape.*\(64, 16\), not \(60, 16\)"),
        ({"num_hidden_layers": 3}, r"9 tensors are missing.*layers\.2\."),
    ],
)
def test_a_config_of_another_model(base: Path, change: dict[str, Any], key: str) -> None:
    configure(base / "config.json", **change)
    with pytest.raises(ModelError, match=key):
        load_model(base)


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("model.layers.0.self_attn.q_proj.bias", True),
        ("model.layers.0.mlp.up_proj.weight_scale", True),
        ("model.layers.0.self_attn.q_proj.lora_A.weight", True),
        ("model.layers.7.mlp.up_proj.weight", True),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", False),
        ("v_head.summary.weight", False),
        ("vision_tower.layers.0.fc1.weight", False),
    ],
)
def test_tensors_too_many(base: Path, name: str, refused: bool) -> None:
    """The model's own may not be left out; other heads and towers, and what the library computes, may."""
    before = logits(load_model(base))
    edit(base / WEIGHTS, and_also(**{name: torch.zeros(16)}))
    if refused:
        with pytest.raises(ModelError, match="no place in it"):
            load_model(base)
    else:
        assert torch.equal(logits(load_model(base)), before)


def test_buffers_of_older_checkpoints(tmp_path: Path) -> None:
    """GPT-2's own files hold causal masks and no head, which is tied."""
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2, n_positions=32))
    model.save_pretrained(tmp_path)
    mask = torch.ones(1, 1, 32, 32)
    old = {"h.0.attn.bias": mask, "h.1.attn.masked_bias": torch.tensor(-1e4)}
    edit(tmp_path / WEIGHTS, lambda tensors: {n.removeprefix("transformer."): t for n, t in tensors.items()} | old)
    assert torch.equal(logits(load_model(tmp_path)), logits(model))


def test_a_judge_without_its_head(base: Path, tiny: Any) -> None:
    LlamaForSequenceClassification(LlamaConfig(**SIZES, num_labels=2)).save_pretrained(base)
    tiny[1].save_pretrained(base)
    edit(base / WEIGHTS, lambda tensors: {n: t for n, t in tensors.items() if "score" not in n})
    with pytest.raises(ModelError, match=r"1 tensors are missing.*score\.weight"):
        class_probabilities(str(base), [("a",)], "judge")


# -- adapters -------------------------------------------------------------------------------------------------------


def refused_adapter(saved: Path, match: str) -> None:
    with pytest.raises(ModelError, match=match):
        load_model(saved)
    with pytest.raises(ModelError, match=match):
        SharedModels().load(saved)


def test_half_an_adapter(saved: Path) -> None:
    """Two modules in two layers are eight tensors."""
    edit(saved / ADAPTER, half)
    refused_adapter(saved, "4 tensors of the adapter are missing")


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_an_adapter_that_is_not_finite(saved: Path, wrong: float) -> None:
    edit(saved / ADAPTER, lambda tensors: {**tensors, next(iter(tensors)): next(iter(tensors.values())) * 0 + wrong})
    refused_adapter(saved, "1 tensors of the adapter are not finite")


def test_an_adapter_with_more_than_it_says(saved: Path) -> None:
    configure(saved / "adapter_config.json", target_modules=["q_proj"])
    refused_adapter(saved, "4 tensors have no place in the adapter")


def test_an_adapter_of_another_rank_or_another_base(saved: Path, base: Path) -> None:
    configure(saved / "adapter_config.json", r=4)
    refused_adapter(saved, "8 tensors of the adapter have another shape")
    configure(saved / "adapter_config.json", r=2)
    LlamaForCausalLM(LlamaConfig(**{**SIZES, "intermediate_size": 32})).save_pretrained(base)
    refused_adapter(saved, r"2 tensors of the adapter have another shape.*up_proj\.lora_B")


def test_a_pickled_adapter_is_never_read(saved: Path) -> None:
    class Planted:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(saved / "ran"),))

    (saved / ADAPTER).unlink()
    (saved / "adapter_model.bin").write_bytes(pickle.dumps(Planted()))
    refused_adapter(saved, "adapter_model.bin is a pickle")
    assert not (saved / "ran").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"modules_to_save": ["lm_head"]},
        {"bias": "all"},
        {"use_dora": True},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "olora"},
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"trainable_token_indices": [3, 5]},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning")
def test_an_adapter_gives_the_logits_it_was_saved_with(base: Path, tmp_path: Path, settings: Any, tiny: Any) -> None:
    """Alone, and beside another on one base, which that one leaves alone."""
    torch.manual_seed(2)
    model = adapter(base, **settings)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01)
    wanted = logits(copy.deepcopy(model))
    save_model(model, tiny[1], tmp_path / "one")
    other = adapter(base)
    other.save_pretrained(str(tmp_path / "two"))
    torch.testing.assert_close(logits(load_model(tmp_path / "one")), wanted)
    shared = SharedModels()
    for path, expected in [
        ("two", logits(other)),
        ("one", wanted),
        ("base", logits(load_model(base))),
        ("two", logits(other)),
    ]:
        with shared.use(tmp_path / path) as found:
            torch.testing.assert_close(logits(found), expected)


def test_an_adapter_with_added_tokens(base: Path, tmp_path: Path, tiny: Any) -> None:
    """Three tokens more than the base: folder and shared base give what was saved."""
    bare = load_model(base)
    bare.resize_token_embeddings(67, mean_resizing=False)
    given = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(bare, given)
    ids = torch.tensor([[3, 65, 66]])

    def of(found: Any) -> torch.Tensor:
        with torch.no_grad():
            return found.eval()(input_ids=ids).logits

    save_model(model, tiny[1], tmp_path / "longer")
    assert torch.equal(of(load_model(tmp_path / "longer")), of(model))
    shared = SharedModels()
    with shared.use(base) as found:
        assert torch.equal(logits(found), logits(load_model(base)))
    with shared.use(tmp_path / "longer") as found:
        assert torch.equal(of(found), of(model))
    with shared.use(base) as found:
        assert found.get_input_embeddings().weight.shape[0] == 64


# -- broken files ---------------------------------------------------------------------------------------------------

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n"
BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda content: content[: len(content) // 2],
    "is empty": lambda content: b"",
    "no safetensors file": lambda content: b"\x93\x00junk" * 50,
    "pointer of Git LFS": lambda content: LFS,
}


@pytest.mark.parametrize("how", BROKEN)
def test_broken_weights(saved: Path, base: Path, how: str) -> None:
    file = saved / ADAPTER
    file.write_bytes(BROKEN[how](file.read_bytes()))
    refused_adapter(saved, f"{ADAPTER} .*{how}")
    file = base / WEIGHTS
    file.write_bytes(BROKEN[how](file.read_bytes()))
    with pytest.raises(ModelError, match=f"{WEIGHTS} .*{how}"):
        load_model(base)


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", '"x"', "null", "\0\0", '{"model_type": "llama", "model_type": "gpt2"}']
)
@pytest.mark.parametrize(
    "file", ["config.json", "adapter_config.json", "tokenizer_config.json", "model.safetensors.index.json"]
)
def test_junk_for_json(base: Path, saved: Path, file: str, content: str) -> None:
    folder = saved if file.startswith("adapter") else base
    (folder / file).write_text(content)
    with pytest.raises(ModelError, match=file.replace(".", r"\.")):
        load_model(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": "abc"},
        {"hidden_size": -4},
        {"num_attention_heads": 0},
        {"num_attention_heads": 5},
        {"num_hidden_layers": None},
        {"model_type": 3},
        {"model_type": "unheard_of"},
        {"hidden_act": "unheard_of"},
        {"dtype": "unheard_of"},
        {"rope_scaling": "unheard_of"},
        {"vocab_size": [1]},
        {"pad_token_id": 64},
    ],
    ids=str,
)
def test_wrong_values_in_a_config(base: Path, change: dict[str, Any]) -> None:
    configure(base / "config.json", **change)
    with pytest.raises(ModelError, match="base"):
        load_model(base)


@pytest.mark.parametrize(
    "change",
    [
        {"peft_type": None},
        {"peft_type": "UNHEARD_OF"},
        {"peft_type": "PROMPT_TUNING"},
        {"task_type": "SEQ_CLS"},
        {"base_model_name_or_path": None},
        {"base_model_name_or_path": 3},
        {"base_model_name_or_path": ""},
        {"base_model_name_or_path": "/no/such/folder"},
        {"r": 0},
        {"r": "x"},
        {"lora_alpha": "x"},
        {"lora_dropout": -0.5},
        {"target_modules": ["nothing"]},
        {"target_modules": 3},
        {"init_lora_weights": "unheard_of"},
    ],
    ids=str,
)
def test_wrong_values_in_an_adapters_config(saved: Path, change: dict[str, Any]) -> None:
    configure(saved / "adapter_config.json", **change)
    refused_adapter(saved, r"adapter|/no/such/folder")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"model": {"type": "BPE", "vocab": 3}}', "\0"])
def test_an_unusable_tokenizer(tmp_path: Path, tiny: Any, content: str) -> None:
    tiny[1].save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match="no tokenizer there"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("how", ["below a file", "too long", "nul", "loop", "empty"])
@pytest.mark.parametrize("load", [load_model, load_tokenizer])
def test_paths_that_are_none(base: Path, tmp_path: Path, how: str, load: Any) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "empty").mkdir()
    path = {
        "below a file": str(base / "config.json" / "model"),
        "too long": str(tmp_path / ("a" * 5000)),
        "nul": f"{tmp_path}/a\0b",
        "loop": str(tmp_path / "loop"),
        "empty": str(tmp_path / "empty"),
    }[how]
    with pytest.raises(UserError, match="model: "):
        load(path)


def test_loading_costs_no_second_reading(base: Path, saved: Path, monkeypatch: Any) -> None:
    """The check reads headers; the tensors of an adapter are read once, by PEFT."""
    import peft.utils.save_and_load as peft_files

    read: list[str] = []
    once = peft_files.safe_load_file
    monkeypatch.setattr(peft_files, "safe_load_file", lambda file, **kw: read.append(str(file)) or once(file, **kw))
    assert isinstance(load_model(saved), PeftModel)
    assert len(read) == 1


def test_every_field_of_the_model_section_reaches_the_loader(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But those that say which model, and not how it is loaded. The revision is that of the section's own path alone."""
    given: dict[str, Any] = {}

    class StopError(Exception):
        pass

    def from_pretrained(path: str, **settings: Any) -> None:
        given.update(settings)
        raise StopError

    monkeypatch.setattr(load.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    monkeypatch.setattr(load, "quantized", lambda quantization: {"quantization_config": quantization})
    section = ModelSection(path=str(base), revision="r", dtype="bfloat16", quantization="nf4", attention="eager")
    named = {"revision": "r", "dtype": torch.bfloat16, "quantization_config": "nf4", "attn_implementation": "eager"}
    assert len(named) == len(set(ModelSection.model_fields) - {"path", "target", "oracle", "tiny", "kernels"})
    for one, expected in ((section, "r"), (section.model_copy(update={"path": "elsewhere"}), "main")):
        with pytest.raises(ModelError, match="StopError"):
            load_model(base, one)
        assert {key: given[key] for key in named} == named | {"revision": expected}


OTHERS = {"training/trainer.py"}
"""What no run file names the loading of: a path that a Python user gives."""


def test_no_command_loads_a_model_past_the_section() -> None:
    """Each call of `load_model` in the package passes a section."""
    package, calls = Path(load.__file__).parents[1], []
    for path in package.rglob("*.py"):
        name = str(path.relative_to(package))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "load_model"
            if called and name not in {*OTHERS, "models/load.py", "models/judges.py"}:
                second = ast.unparse(node.args[1]) if len(node.args) > 1 else ""  # type: ignore[attr-defined]
                calls.append((name, second.rpartition(".")[2] in ("model", "section", "_section")))
    assert len(calls) >= 5
    assert [name for name, through in calls if not through] == []
