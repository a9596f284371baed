"""Small models of many architectures, from the library's config classes, with weights that reach far.

A fresh model's logits are all near zero: windows, soft caps, gates and routers then change nothing that could be seen.
So every matrix is drawn with a spread at which they do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

WIDTH, LAYERS, HEADS, WINDOW = 32, 3, 4, 16

_PLAIN: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "head_dim": WIDTH // HEADS,
    "max_position_embeddings": 256,
}
_EXPERTS: dict[str, Any] = {**_PLAIN, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
_GPT: dict[str, Any] = {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 256}
_LATENT: dict[str, Any] = {
    **{key: value for key, value in _PLAIN.items() if key != "head_dim"},
    "num_key_value_heads": HEADS,
    "kv_lora_rank": 8,
    "q_lora_rank": 12,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
}
_ALTERNATING = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "sliding_window": WINDOW}

_SCANS: dict[str, Any] = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 16}

CONFIGS: dict[str, dict[str, Any]] = {
    "llama": _PLAIN,
    "mistral": {**_PLAIN, "sliding_window": WINDOW},
    "qwen2": _PLAIN,
    "qwen3": _PLAIN,
    "smollm3": {**_PLAIN, "pad_token_id": None},
    "olmo2": _PLAIN,
    "olmo3": {**_PLAIN, **_ALTERNATING},
    "granite": {**_PLAIN, "logits_scaling": 3.0, "residual_multiplier": 0.5, "attention_multiplier": 0.2},
    "cohere": {**_PLAIN, "logit_scale": 0.2},
    "cohere2": {**_PLAIN, **_ALTERNATING, "logit_scale": 0.2},
    "gemma": _PLAIN,
    "gemma2": {**_PLAIN, **_ALTERNATING, "final_logit_softcapping": 5.0, "attn_logit_softcapping": 5.0},
    "gemma3_text": {**_PLAIN, **_ALTERNATING},
    "phi": _PLAIN,
    "phi3": {**_PLAIN, "sliding_window": WINDOW, "pad_token_id": None},
    "stablelm": _PLAIN,
    "starcoder2": {**_PLAIN, "sliding_window": WINDOW},
    "nemotron": _PLAIN,
    "gpt2": _GPT,
    "gpt_bigcode": _GPT,
    "gptj": {**_GPT, "rotary_dim": 4},
    "codegen": {**_GPT, "rotary_dim": 4},
    "gpt_neo": {
        "hidden_size": WIDTH,
        "num_layers": 2,
        "num_heads": HEADS,
        "attention_types": [[["global", "local"], 1]],
        "window_size": WINDOW,
        "max_position_embeddings": 256,
    },
    "gpt_neox": _PLAIN,
    "opt": {**_PLAIN, "ffn_dim": 48, "word_embed_proj_dim": WIDTH},
    "bloom": {"hidden_size": WIDTH, "n_layer": LAYERS, "n_head": HEADS},
    "falcon": {**{k: v for k, v in _PLAIN.items() if k != "head_dim"}, "new_decoder_architecture": True, "num_kv_heads": 2},
    "mpt": {"d_model": WIDTH, "n_layers": LAYERS, "n_heads": HEADS, "max_seq_len": 1024},
    "mixtral": {**_PLAIN, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": {**_EXPERTS, "shared_expert_intermediate_size": 24},
    "qwen3_moe": _EXPERTS,
    "olmoe": _EXPERTS,
    "granitemoe": {**_PLAIN, "num_local_experts": 4, "num_experts_per_tok": 2},
    "deepseek_v3": {**_LATENT, "n_group": 2, "topk_group": 1},
    "gpt_oss": {**_PLAIN, **_ALTERNATING, "num_local_experts": 4, "num_experts_per_tok": 2},
    "llama4_text": {
        **_PLAIN,
        "num_local_experts": 2,
        "intermediate_size_mlp": 48,
        "attention_chunk_size": WINDOW,
        "interleave_moe_layer_step": 2,
    },
    "qwen3_next": {
        **_EXPERTS,
        "shared_expert_intermediate_size": 24,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    },
    "mamba": {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "state_size": 8},
    "mamba2": {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "state_size": 8, "num_heads": 8, "head_dim": 8,
               "n_groups": 2},
    "jamba": {
        **_PLAIN,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "mamba_d_state": 8,
        "use_mamba_kernels": False,
    },
    "lfm2": {**_PLAIN, "layer_types": ["conv", "full_attention", "conv"]},
    "rwkv": {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "attention_hidden_size": WIDTH, "context_length": 256},
    "recurrent_gemma": {**_PLAIN, "attention_window_size": WINDOW, "lru_width": WIDTH},
    "qwen2 with windows": {**_PLAIN, "use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    "falcon with alibi": {**{k: v for k, v in _PLAIN.items() if k != "head_dim"}, "alibi": True},
    "glm4": {**_PLAIN, "pad_token_id": None},
    "ernie4_5": _PLAIN,
    "exaone4": {**_PLAIN, **_ALTERNATING},
    "seed_oss": _PLAIN,
    "falcon_mamba": {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "state_size": 8},
    "bamba": {**_PLAIN, **_SCANS, "attn_layer_indices": [1]},
    "falcon_h1": {**_PLAIN, **_SCANS, "mamba_d_ssm": 64, "lm_head_multiplier": 0.5},
    "granitemoehybrid": {
        **_PLAIN,
        **_SCANS,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "layer_types": ["mamba", "attention", "mamba"],
        "shared_intermediate_size": 24,
        "logits_scaling": 2.0,
    },
}  # fmt: skip
"""Model type of the library, and what is special → what its config is given besides the vocabulary."""


def build(kind: str, vocab_size: int, seed: int = 0) -> PreTrainedModel:
    """Return a small, fresh model of a type, in evaluation mode and float32."""
    torch.manual_seed(seed)
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = AutoConfig.for_model(kind.partition(" ")[0], **{"vocab_size": vocab_size, **ids, **CONFIGS[kind]})
    for key, value in config.to_dict().items():  # a step is compared with a gradient, which dropout makes another
        if key.endswith(("dropout", "pdrop", "dropout_prob")) and isinstance(value, float):
            setattr(config, key, 0.0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def spread(model: nn.Module, seed: int = 0) -> None:
    """Draw every matrix anew, in place, wide enough that caps, windows, gates and routers change what comes out."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                fan_in = parameter[0].numel() if parameter.dim() == 2 else parameter.shape[-1]
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 1.5 / fan_in**0.5)
