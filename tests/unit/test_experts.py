"""Mixtures of experts with the default LoRA: every expert gets an adapter, everything but the experts its dropout."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers
from peft.tuners.lora import LoraLayer, ParamWrapper
from torch import nn

from engines import forward_of
from often import often
from scopewise.api import unlearn
from scopewise.config import LoraSection
from scopewise.models.activations import mean_activations
from scopewise.models.adapters import lora_config, with_adapter
from scopewise.models.load import load_model, save_model

SIZES = {
    "vocab_size": 300,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
TOP = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "head_dim": 8}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "Mixtral": ("Mixtral", {"num_local_experts": 4}),
    "Qwen3Moe": ("Qwen3Moe", TOP),
    "GptOss": ("GptOss", {"num_local_experts": 4, "head_dim": 8, "num_experts_per_tok": 2}),
    "DeepseekV3": (
        "DeepseekV3",
        {
            **{
                "moe_intermediate_size": 8,
                "n_routed_experts": 4,
                "num_experts_per_tok": 2,
                "n_group": 1,
                "topk_group": 1,
            },
            **{"first_k_dense_replace": 1, "kv_lora_rank": 8, "q_lora_rank": 8},
            **{"qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8},
        },
    ),
    "Qwen3Next": (
        "Qwen3Next",
        {
            **TOP,
            **{"shared_expert_intermediate_size": 8, "linear_num_value_heads": 2, "linear_num_key_heads": 2},
            **{"linear_key_head_dim": 8, "linear_value_head_dim": 8},
            **{"layer_types": ["linear_attention", "full_attention"]},
        },
    ),
}
IDS = torch.arange(5, 25)[None]


def build(kind: str) -> Any:
    name, settings = KINDS[kind]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SIZES, **settings, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    return getattr(transformers, f"{name}ForCausalLM")(config).eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


@pytest.mark.parametrize("kind", often(KINDS, {"Mixtral", "GptOss"}))
def test_the_default_lora_reaches_every_expert(kind: str, tiny: Any, forget: Any, retain: Any, tmp_path: Any) -> None:
    base = build(kind)
    base.save_pretrained(tmp_path / "base")
    base = load_model(tmp_path / "base")
    before = logits(base)
    layers = {n for n, p in base.named_parameters() if p.dim() == 3 and ".experts." in n}
    assert layers
    model = with_adapter(base, lora_config(), 0)
    adapted = [(n, m) for n, m in model.named_modules() if isinstance(m, LoraLayer)]
    wrapped = [
        m for _, m in adapted if isinstance(m, ParamWrapper) and m.parameter_name in ("gate_up_proj", "down_proj")
    ]
    assert len(wrapped) == len(layers)
    for _, module in adapted:
        if not isinstance(module, ParamWrapper):
            assert isinstance(module.lora_dropout["default"], nn.Dropout)
            assert module.lora_dropout["default"].p == 0.1
    torch.testing.assert_close(logits(model), before)

    start = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    arguments = {"learning_rate": 1e-2, "max_steps": 2, "use_cpu": True, "disable_tqdm": True, "region": "all"}
    got = unlearn(model, tiny[1], forget[:4], retain[:4], "ga_kl", **arguments)
    moved = {n for n, p in got.named_parameters() if n in start and not torch.equal(p, start[n])}
    assert {n for n in start if ".experts." in n and ".lora_B." in n} <= moved

    save_model(got, tiny[1], tmp_path / "adapter")
    again = load_model(tmp_path / "adapter", trainable=True)
    torch.testing.assert_close(logits(again), logits(got))
    # A run's next stage goes on with it, dropout included.
    continued = with_adapter(again, lora_config(), 0)
    assert any(isinstance(m, nn.Dropout) and m.p == 0.1 for m in continued.modules())
    wanted = logits(copy.deepcopy(continued))
    same = unlearn(continued, tiny[1], forget[:4], retain[:4], "ga_kl", **{**arguments, "learning_rate": 0.0})
    assert torch.equal(logits(same), wanted)


JETMOE = {**SIZES, "num_local_experts": 4, "num_experts_per_tok": 2, "kv_channels": 8}


def test_experts_in_modules_of_their_own_get_an_adapter(tiny: Any, forget: Any, retain: Any, tmp_path: Any) -> None:
    """JetMoE has a module for the input and one for the output of all experts, in attention too: 2 layers x 2 x 2."""
    torch.manual_seed(0)
    config = transformers.JetMoeConfig(**JETMOE, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    transformers.JetMoeForCausalLM(config).save_pretrained(tmp_path / "base")
    base = load_model(tmp_path / "base")
    stacks = [n for n, p in base.named_parameters() if p.dim() == 3]
    assert len(stacks) == 8
    before = logits(base)
    model = with_adapter(base, lora_config(), 0)
    wrapped = [m for m in model.modules() if isinstance(m, ParamWrapper)]
    assert {id(m.get_param()) for m in wrapped} == {id(p) for p in model.parameters() if p.dim() == 3}
    torch.testing.assert_close(logits(model), before)
    start = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    arguments = {"learning_rate": 1e-2, "max_steps": 2, "use_cpu": True, "disable_tqdm": True, "region": "all"}
    got = unlearn(model, tiny[1], forget[:4], retain[:4], "ga_kl", **arguments)
    experts = {n for n in start if "_linear.lora_B" in n}
    assert len(experts) == 8
    assert all(not torch.equal(p, start[n]) for n, p in got.named_parameters() if n in experts)
    save_model(got, tiny[1], tmp_path / "adapter")
    torch.testing.assert_close(logits(load_model(tmp_path / "adapter")), logits(got))


@pytest.mark.parametrize("adapted", [False, True])
def test_the_inputs_of_experts_in_modules_of_their_own_are_read(adapted: bool, encoded: Any) -> None:
    torch.manual_seed(0)
    model: Any = transformers.JetMoeForCausalLM(transformers.JetMoeConfig(**JETMOE)).eval()
    given: list[torch.Tensor] = []
    handle = model.model.layers[0].mlp.input_linear.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    tokens = 0
    total = torch.zeros(16)
    with torch.no_grad():
        for item in encoded[0]:  # the answer is what a whole row adds to its prompt
            tokens += len(item.answer_ids)
            for sign, ids in ((1, item.prompt_ids + item.answer_ids), (-1, item.prompt_ids)):
                model(input_ids=torch.tensor([ids]), use_cache=False)
                total += sign * given.pop().abs().sum(0)
    handle.remove()
    if adapted:
        model = with_adapter(model, lora_config(LoraSection(r=2)), 0)
    found = mean_activations(forward_of(model), encoded[0], 4096, "rows")
    name = "model.layers.0.mlp.input_linear." + ("lora_A.weight" if adapted else "weight")
    each = found[name][::2] if adapted else found[name]  # of two ranks of each expert one
    torch.testing.assert_close(each.sum(0), total / tokens, rtol=1e-4, atol=1e-6)


class Mixed(torch.nn.Module):
    """Several matrices in one tensor, which are no experts by their names."""

    def __init__(self) -> None:
        super().__init__()
        self.mixture = torch.nn.Parameter(torch.ones(2, 3, 4))


def test_matrices_without_an_adapter_are_named(caplog: Any) -> None:
    model = transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(**SIZES, **TOP))
    with_adapter(copy.deepcopy(model), lora_config())
    assert not [r for r in caplog.records if r.name == "scopewise"]
    model.model.layers[0].beside = Mixed()
    with_adapter(model, lora_config())
    (record,) = [r for r in caplog.records if r.name == "scopewise"]
    assert "1 tensors" in record.getMessage()
    assert "layers.0.beside.mixture" in record.getMessage()
