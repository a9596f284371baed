"""LoRA layers in fewer passes: the same outputs and gradients as PEFT's, and a model that is left as it was."""

from __future__ import annotations

from contextlib import AbstractContextManager

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from architectures.models import build, spread
from engines import forward_of
from scopewise.models.flops import count_flops
from scopewise.models.kernels import Kernels, merged_lora
from scopewise.models.kernels.lora_linear import fused_lora
from scopewise.models.merging import merged


def _model(dtype: torch.dtype = torch.float32, dropout: float = 0.0, **changes: object) -> PeftModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        attention_bias=True,
        mlp_bias=True,
    )
    model = get_peft_model(
        LlamaForCausalLM(config).to(dtype),
        LoraConfig(r=4, lora_alpha=8, lora_dropout=dropout, target_modules="all-linear", **changes),  # type: ignore
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or name.endswith(".bias"):
                parameter.normal_(std=0.1)
    return model  # type: ignore[return-value]


def folded(model: nn.Module) -> AbstractContextManager:
    """The context of an evaluation."""
    return Kernels(["merged_lora"]).evaluating(forward_of(model).abilities.mergeable)


IDS = torch.arange(24).reshape(2, 12)


def _gradients(model: PeftModel) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(1)
    model.zero_grad()
    logits = model(input_ids=IDS).logits
    logits.square().mean().backward()
    return logits.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_fused_layers_give_pefts_outputs_and_gradients(dropout: float) -> None:
    model = _model(dropout=dropout).train()
    logits, gradients = _gradients(model)
    with fused_lora(model):
        assert sum("forward" in vars(m) for m in model.modules()) == 14
        ours, found = _gradients(model)
    assert torch.allclose(ours, logits, atol=1e-5)
    assert gradients.keys() == found.keys()
    assert all(torch.allclose(found[n], g, rtol=1e-4, atol=1e-6) for n, g in gradients.items())
    assert not any("forward" in vars(m) for m in model.modules())


def test_a_fused_layer_takes_fewer_passes() -> None:
    """Neither the product with the scaling nor the sum is a step of its own."""

    def steps(layer: nn.Module) -> set[str]:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled:
            layer(torch.randn(3, 32))
        return {event.key for event in profiled.key_averages()}

    model = _model()
    layer = next(m for m in model.modules() if isinstance(m, Linear))
    assert {"aten::add", "aten::mul"} <= steps(layer)
    with fused_lora(model):
        assert not {"aten::add", "aten::mul"} & steps(layer)


@pytest.mark.parametrize("changes", [{"use_dora": True}, {"use_rslora": True}, {"lora_bias": True}])
def test_other_kinds_of_lora_are_computed_as_peft_does(changes: dict[str, bool]) -> None:
    model = _model(**changes).eval()
    plain = model(input_ids=IDS).logits
    with fused_lora(model):
        assert torch.allclose(model(input_ids=IDS).logits, plain, atol=1e-5)
    with folded(model):
        assert torch.allclose(model(input_ids=IDS).logits, plain, atol=1e-5)


def test_a_hook_on_b_sees_its_input() -> None:
    model = _model()
    seen: list[Tensor] = []
    b = next(m for n, m in model.named_modules() if n.endswith("lora_B.default"))
    b.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with fused_lora(model):
        model(input_ids=IDS)
    assert [tuple(x.shape) for x in seen] == [(2, 12, 4)]


def test_a_folded_model_gives_the_same_and_is_put_back_bit_for_bit() -> None:
    model = _model().eval()
    before = {n: p.clone() for n, p in model.named_parameters()}
    expected = model(input_ids=IDS).logits
    with folded(model):
        got = model(input_ids=IDS).logits
        assert all(m.merged for m in model.modules() if isinstance(m, Linear))
        per_token = count_flops(model, model.get_output_embeddings())[0]
    assert torch.allclose(got, expected, atol=1e-5)
    assert not torch.equal(got, expected)  # it was another sum
    assert not any(m.merged for m in model.modules() if isinstance(m, Linear))
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert torch.equal(model(input_ids=IDS).logits, expected)
    with torch.no_grad(), model.disable_adapter():
        assert per_token < count_flops(model, model.get_output_embeddings())[0]


def test_an_adapter_that_is_switched_off_is_not_folded_in() -> None:
    model = _model().eval()
    with model.disable_adapter():
        expected = model(input_ids=IDS).logits
        with folded(model):
            assert torch.equal(model(input_ids=IDS).logits, expected)
    with folded(model):
        assert not torch.allclose(model(input_ids=IDS).logits, expected)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
@pytest.mark.parametrize("tied", [True, False])
def test_a_weight_that_another_module_holds_is_not_folded_into(tied: bool) -> None:
    """The adapter of a head that is tied to the embeddings acts on the head alone."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        tie_word_embeddings=tied,
    )
    model = get_peft_model(LlamaForCausalLM(config), LoraConfig(r=4, target_modules=["lm_head", "q_proj"])).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
        expected = model(input_ids=IDS).logits
        with folded(model):  # type: ignore[arg-type]
            assert torch.allclose(model(input_ids=IDS).logits, expected, rtol=1e-4, atol=1e-5)
            merged = {n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, Linear) and m.merged}
    assert merged == ({"q_proj"} if tied else {"q_proj", "lm_head"})


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
@pytest.mark.parametrize("kind", ["llama", "jamba"])
def test_a_merged_model_computes_the_same(kind: str) -> None:
    """Llama's head is tied; Jamba multiplies by the weight of `dt_proj` itself, so that an adapter there does nothing."""
    base = build(kind, 64)
    spread(base)
    if kind == "llama":
        base.config.tie_word_embeddings = True
        base.lm_head.weight = base.model.embed_tokens.weight
    targets = ["lm_head", "q_proj", "dt_proj", "x_proj"] if kind == "jamba" else ["lm_head", "q_proj"]
    model = get_peft_model(base, LoraConfig(r=4, target_modules=targets)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
        expected = model(input_ids=IDS, use_cache=False).logits
        with model.disable_adapter():
            assert not torch.allclose(model(input_ids=IDS, use_cache=False).logits, expected, rtol=0.1, atol=0.1)
        with folded(model):  # type: ignore[arg-type]
            assert torch.allclose(model(input_ids=IDS, use_cache=False).logits, expected, rtol=1e-3, atol=1e-4)
        whole = merged(model)  # type: ignore[arg-type]
        assert torch.allclose(whole(input_ids=IDS, use_cache=False).logits, expected, rtol=1e-3, atol=1e-4)


def test_only_the_active_adapter_is_folded_in() -> None:
    model = _model().eval()
    model.add_adapter("other", model.peft_config["default"])
    expected = model(input_ids=IDS).logits
    with folded(model):
        assert torch.allclose(model(input_ids=IDS).logits, expected, atol=1e-5)


def test_sixteen_bits_are_not_folded() -> None:
    """A sum in bf16 would round the adapter away."""
    model = _model(torch.bfloat16).eval()
    with folded(model):
        assert not any(m.merged for m in model.modules() if isinstance(m, Linear))


def test_weights_too_large_for_a_second_copy_are_not_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merged_lora, "MERGED_BYTES", 1000)
    model = _model().eval()
    with folded(model):
        assert not any(m.merged for m in model.modules() if isinstance(m, Linear))


def test_evaluating_restores_mode_and_weights_after_an_error() -> None:
    model = _model().train()
    weight = next(p for n, p in model.named_parameters() if "base_layer" in n)
    before = weight.clone()

    def interrupted() -> None:
        with forward_of(model).evaluating():
            assert not model.training
            assert torch.is_inference_mode_enabled()
            assert not torch.equal(weight, before)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert model.training
    assert torch.equal(weight, before)
    assert not weight.is_inference()
