"""What is trained is float32, whatever the base; checkpointing, compiling and 4 bits change no more than they say."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from transformers import AutoModelForCausalLM, TrainerCallback

from engines import forward_of
from scopewise.config import LoraSection, ModelSection, TinyConfig
from scopewise.data.batch import collate
from scopewise.errors import ConfigError, ModelError
from scopewise.models.adapters import lora_config, with_adapter
from scopewise.models.architecture import decoder_blocks, is_quantized
from scopewise.models.kernels.compiled import compiled_blocks
from scopewise.models.load import four_bits, load_model, save_model
from scopewise.models.precision import float32_masters, mixed_dtype
from scopewise.models.tiny import build_tiny
from scopewise.region import Entry, Region
from scopewise.run_file import load_config
from scopewise.runs.pipeline import Pipeline
from scopewise.training.refusals import check_optimizer

NONE = lora_config(LoraSection(r=2, lora_alpha=4, lora_dropout=0.0))


class Kept(TrainerCallback):
    """Keeps the trained parameters as they are at the end of the training, before they are rounded."""

    def __init__(self) -> None:
        self.parameters: dict[str, torch.Tensor] = {}

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.parameters = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def test_a_bf16_weight_swallows_a_small_step() -> None:
    """bf16 has 8 significant bits: around 0.01 neighbours are 2⁻¹⁴ = 6.1e-5 apart, so that -1e-5 rounds back.

    A hundred such steps are 1e-3: the bf16 weight has not moved at all, the float32 one has moved by all of it.
    """
    low, full = torch.tensor(0.01, dtype=torch.bfloat16), torch.tensor(0.01)
    before = low.clone()
    for _ in range(100):
        low -= 1e-5
        full -= 1e-5
    assert torch.equal(low, before)
    assert float(full) == pytest.approx(0.009, abs=1e-6)


def test_ours_does_not(tiny: Any, make_trainer: Any) -> None:
    """Twenty Adam steps of 1e-5, all with the same sign of gradient, on a bf16 model, all parameters trained.

    AdamW on the bf16 weights themselves leaves most of them as they were; the trainer's are float32 and have moved by
    nearly 20 x 1e-5. After training the model is bf16 again.
    """
    model, tokenizer = tiny
    model = model.to(torch.bfloat16)
    plain = copy.deepcopy(model)
    kept = Kept()
    trainer = make_trainer(model, tokenizer, "gradient_ascent", optim="adamw_torch", learning_rate=1e-5, max_steps=20)
    trainer.add_callback(kept)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    trainer.train()
    assert {p.dtype for p in kept.parameters.values()} == {torch.float32}
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}

    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-5, weight_decay=0.0)
    batch = trainer.get_train_dataloader().collate_fn(list(range(8)))
    for _ in range(20):
        (-torch.nn.functional.cross_entropy(forward_of(plain).logits(batch).float(), batch["label"])).backward()
        optimizer.step()
        optimizer.zero_grad()

    def moved(after: dict[str, torch.Tensor]) -> float:
        names = [n for n in before if "proj" in n]
        large = {n: before[n].float().abs() > 2**-6 for n in names}
        changed = sum(int(((after[n].float() != before[n].float()) & large[n]).sum()) for n in names)
        return changed / sum(int(mask.sum()) for mask in large.values())

    assert moved(dict(plain.named_parameters())) == 0.0  # each of twenty steps was swallowed
    assert moved(kept.parameters) > 0.99


def test_only_what_is_trained_becomes_float32(tiny: Any, encoded: Any) -> None:
    """A region of one matrix costs that matrix; the forward runs in bf16 and its gradient is float32."""
    model = tiny[0].to(torch.bfloat16).requires_grad_(False)
    chosen = model.model.layers[1].mlp.up_proj.weight.requires_grad_(True)
    assert mixed_dtype(model) is None
    with float32_masters(model):
        assert {n for n, p in model.named_parameters() if p.dtype == torch.float32} == {
            "model.layers.1.mlp.up_proj.weight"
        }
        assert mixed_dtype(model) == torch.bfloat16
        logits = forward_of(model).logits(collate(encoded[0]))
        assert logits.dtype == torch.bfloat16
        logits.float().sum().backward()
        assert chosen.grad is not None
        assert chosen.grad.dtype == torch.float32
    assert chosen.dtype == torch.bfloat16
    assert chosen.grad is None


def test_adapter_on_a_bf16_base_is_float32_and_so_is_its_state(tiny: Any, make_trainer: Any) -> None:
    model, tokenizer = tiny
    trainer = make_trainer(
        model.to(torch.bfloat16), tokenizer, "ga_kl", peft_config=NONE, optim="adamw_torch", max_steps=2
    )
    trainer.train()
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    state = trainer.optimizer.state
    assert {p.dtype for p in trained} == {torch.float32}
    assert {state[p]["exp_avg"].dtype for p in trained} == {torch.float32}
    assert mixed_dtype(trainer.model) == torch.bfloat16
    with forward_of(trainer.model).autocast():
        assert torch.is_autocast_enabled("cpu")


def test_attention_is_sdpa_by_itself_and_can_be_chosen(tiny: Any, tmp_path: Path) -> None:
    save_model(*tiny, tmp_path / "base")
    assert load_model(tmp_path / "base").config._attn_implementation == "sdpa"
    assert load_model(tmp_path / "base", ModelSection(attention="eager")).config._attn_implementation == "eager"
    if importlib.util.find_spec("flash_attn") is None:
        with pytest.raises(ModelError, match="model.attention: flash_attention_2"):
            load_model(tmp_path / "base", ModelSection(attention="flash_attention_2"))


def _one_step(model: Any, tokenizer: Any, make_trainer: Any, region: Any, **args: Any) -> dict[str, torch.Tensor]:
    trainer = make_trainer(
        copy.deepcopy(model), tokenizer, "ga_descent", peft_config=NONE, region=region, learning_rate=1.0, **args
    )
    trainer.train()
    return {n: p.detach().clone() for n, p in trainer.model.named_parameters() if "lora_" in n}


@pytest.mark.parametrize("every_n_layers", [1, pytest.param(2, marks=pytest.mark.long)])
def test_checkpointing_with_lora_gives_the_same_step(every_n_layers: int, tiny: Any, make_trainer: Any) -> None:
    """OpenUnlearning #178: there, LoRA with checkpointing leaves every B zero."""
    plain = _one_step(*tiny, make_trainer, "all")
    kwargs = {"every_n_layers": every_n_layers}
    saving = _one_step(
        *tiny, make_trainer, "all", activation_checkpointing=True, activation_checkpointing_kwargs=kwargs
    )
    for name, value in plain.items():
        assert torch.allclose(value, saving[name], atol=1e-6), name
        assert "lora_B" not in name or bool(saving[name].any())


def test_checkpointing_does_not_drag_the_backward_down(tiny: Any, make_trainer: Any) -> None:
    """With a region in the last block alone, no state below it requires a gradient, with checkpointing or without."""
    for checkpointing in (False, True):
        model = with_adapter(copy.deepcopy(tiny[0]), NONE, 0)
        names = [n.replace("base_model.model.", "").replace(".default", "") for n, _ in model.named_parameters()]
        entries = [Entry(n, 1, ".layers.1." in n, n.partition(".lora_")[0]) for n in names if "lora_" in n]
        region = Region("named", {}, tuple(entries))
        required: dict[int, bool] = {}
        trainer = make_trainer(
            model, tiny[1], "ga_descent", region=region, activation_checkpointing=checkpointing, learning_rate=1.0
        )

        def note(module: Any, _: Any, output: Any, required: dict[int, bool] = required) -> None:
            required[module.self_attn.layer_idx] = (output[0] if isinstance(output, tuple) else output).requires_grad

        handles = [block.register_forward_hook(note) for block in decoder_blocks(model)]
        trainer.train()
        for handle in handles:
            handle.remove()
        assert required == {0: False, 1: True}
        assert any(bool(p.any()) for n, p in trainer.model.named_parameters() if "layers.1" in n and "lora_B" in n)


def test_compiled_blocks_are_compiled_once_for_all_lengths(tiny: Any, encoded: Any) -> None:
    """Eight lengths, two layers: as many compilations after the last as after the second length."""
    model, counter = tiny[0], CompileCounter()
    items = sorted(encoded[0] + encoded[1], key=len)
    pairs = [items[i : i + 2] for i in range(0, len(items), 2)]
    assert len({max(map(len, pair)) for pair in pairs}) >= 4
    torch._dynamo.reset()
    forward = forward_of(model)  # what the model allows is found out before it is compiled
    with torch.no_grad():
        expected = [forward.logits(collate(pair)) for pair in pairs]
        with compiled_blocks(model, backend=counter):
            found = [forward.logits(collate(pair)) for pair in pairs[:2]]
            after_two = counter.frame_count
            found += [forward.logits(collate(pair)) for pair in pairs[2:]]
    assert after_two >= 1
    assert counter.frame_count == after_two
    assert "forward" not in decoder_blocks(model)[0].__dict__
    for one, other in zip(expected, found, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor:UserWarning"
)  # the compiler's own look at its inputs
def test_compiled_training_takes_the_same_step(tiny: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    plain = _one_step(*tiny, make_trainer, "all")
    monkeypatch.setattr("scopewise.training.trainer.compiled_blocks", lambda m: compiled_blocks(m, backend="eager"))
    compiled = _one_step(*tiny, make_trainer, "all", torch_compile=True)
    assert all(torch.allclose(plain[n], compiled[n], atol=1e-5) for n in plain)


def test_four_bits(tiny: Any, make_trainer: Any, tmp_path: Path) -> None:
    """QLoRA: the base's linear layers are packed, the adapter is float32 and learns.

    On the CPU, where `load_model` refuses it, it works as long as no forward is in evaluation mode. Of widths 192 and 512,
    since the CPU's kernels want multiples of 64.
    """
    pytest.importorskip("bitsandbytes")
    words = [tiny[1].decode([i]) for i in range(300)]
    base, _ = build_tiny(words, TinyConfig(vocab_size=300, width=192, layers=1, heads=2, context=256), seed=0)
    save_model(base, tiny[1], tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path / "base", dtype=torch.bfloat16, quantization_config=four_bits()
    )
    assert is_quantized(model)
    packed = model.model.layers[0].mlp.up_proj.weight
    assert packed.dtype == torch.uint8
    assert packed.numel() == base.model.layers[0].mlp.up_proj.weight.numel() // 2
    trainer = make_trainer(model, tiny[1], "ga_descent", peft_config=NONE, activation_checkpointing=True)
    trainer.train()
    b = {n: p for n, p in trainer.model.named_parameters() if "lora_B" in n}
    assert {p.dtype for p in b.values()} == {torch.float32}
    assert all(bool(p.any()) for p in b.values())


def test_what_cannot_be_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Any) -> None:
    save_model(*tiny, tmp_path / "base")
    with pytest.raises(ConfigError, match=r"unlearn\.optim: 'adamw_torhc'.*Did you mean 'adamw_torch'"):
        check_optimizer("adamw_torhc", "unlearn")
    with pytest.raises(ConfigError, match=r"finetune\.parameters: all, on a base with model\.quantization=nf4"):
        Pipeline(load_config(None, ["model.quantization=nf4", "finetune.parameters=all", f"run.dir={tmp_path / 'r'}"]))
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: object() if n == "bitsandbytes" else found(n))
    with pytest.raises(ModelError, match="nf4 on the CPU, where bitsandbytes does not train; use a GPU, or set none"):
        load_model(tmp_path / "base", ModelSection(quantization="nf4"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "bitsandbytes" else found(n))
    with pytest.raises(ModelError, match="bitsandbytes is not installed; pip install 'scopewise"):
        load_model(tmp_path / "base", ModelSection(quantization="nf4"))
    with pytest.raises(ConfigError, match="bitsandbytes is not installed; pip install 'scopewise"):
        check_optimizer("paged_adamw_32bit", "unlearn")
