"""Mixtures of experts with the default LoRA: every expert gets an adapter, everything but the experts its dropout."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers
from peft.tuners.lora import LoraLayer, ParamWrapper
from torch import nn

from scopewise.api import unlearn
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


@pytest.mark.parametrize("kind", KINDS)
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


def test_experts_without_an_adapter_are_named(caplog: Any) -> None:
    """JetMoE holds its experts' matrices some way that neither PEFT nor we reach."""
    sizes = {**SIZES, "num_local_experts": 4, "num_experts_per_tok": 2, "kv_channels": 8}
    model = transformers.JetMoeForCausalLM(transformers.JetMoeConfig(**sizes))
    with_adapter(model, lora_config())
    (record,) = [r for r in caplog.records if r.name == "scopewise"]
    assert "8 tensors" in record.getMessage()  # two layers x attention and MLP x input and output
    assert "mlp.input_linear.weight" in record.getMessage()
    caplog.clear()
    with_adapter(transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(**SIZES, **TOP)), lora_config())
    assert not [r for r in caplog.records if r.name == "scopewise"]
