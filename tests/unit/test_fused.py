"""Norms and rotations in fewer passes: the same outputs and gradients, and nothing exchanged that computes something else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.models.cohere import modeling_cohere
from transformers.models.llama import modeling_llama
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextRMSNormGated

from scopewise.models.fused import _FusedGate, _FusedNorm, _Gated, fused, is_rms_norm, is_rotary, is_swiglu, rotated

SIZES: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8,
}  # fmt: skip
IDS = torch.arange(24).reshape(2, 12)


def _model(kind: str = "llama", dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    models: dict[str, Any] = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
        "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES)),
        "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**SIZES)),
        "pythia": lambda: GPTNeoXForCausalLM(
            GPTNeoXConfig(
                vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2
            )
        ),
    }
    model = models[kind]().to(dtype)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            nn.init.normal_(parameter, mean=1.0, std=0.2)
            parameter.requires_grad_(False)
    return model


def _gradients(model: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    logits = model(input_ids=IDS).logits
    logits.float().square().mean().backward()
    return logits.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("kind", "norms", "gates"), [("llama", 5, 2), ("qwen3", 9, 2), ("gemma2", 0, 0), ("pythia", 0, 0)]
)
def test_a_fused_model_gives_the_same_outputs_and_gradients(kind: str, norms: int, gates: int) -> None:
    """Qwen3 also norms q and k; Gemma multiplies by 1 + weight and gates with GELU; Pythia turns a quarter of each head."""
    model = _model(kind)
    logits, gradients = _gradients(model)
    with fused(model):
        assert sum(isinstance(m, _FusedNorm) for m in model.modules()) == norms
        assert sum(isinstance(m, _FusedGate) for m in model.modules()) == gates
        ours, found = _gradients(model)
    assert torch.allclose(ours, logits, rtol=1e-4, atol=1e-5)
    assert found.keys() == gradients.keys()
    assert all(torch.allclose(found[n], g, rtol=1e-3, atol=1e-6) for n, g in gradients.items())


def test_sixteen_bits_are_computed_in_float32_as_before() -> None:
    """A norm is the same to the last bit; a rotation is rounded once where the library rounds three times."""
    norm = LlamaRMSNorm(32).to(torch.bfloat16).requires_grad_(False)
    x = torch.randn(3, 5, 32, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    expected = norm(x)
    with fused(norm):
        assert isinstance(norm, _FusedNorm)
        assert torch.equal(norm(x), expected)
    q = x.view(1, 3, 5, 32)
    cos, sin = q[:, 0].float().cos().to(x.dtype), q[:, 0].float().sin().to(x.dtype)
    for ours, theirs in zip(rotated(q, q, cos, sin), modeling_llama.apply_rotary_pos_emb(q, q, cos, sin), strict=True):
        assert torch.allclose(ours.float(), theirs.float(), atol=2**-6)


def test_gradients_by_finite_differences() -> None:
    """In float64, also where the two halves have sines of their own."""
    generator = torch.Generator().manual_seed(0)
    norm = LlamaRMSNorm(6).double().requires_grad_(False)
    x = torch.randn(2, 3, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    norm.weight.copy_(torch.randn(6, generator=generator))
    q = torch.randn(2, 2, 3, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    cos, sin = torch.randn(2, 2, 3, 6, dtype=torch.float64, generator=generator)
    with fused(norm):
        assert isinstance(norm, _FusedNorm)
        assert torch.autograd.gradcheck(norm, x)
    assert torch.autograd.gradcheck(lambda a: rotated(a, 2 * a, cos, sin), q)
    gate, up = torch.randn(2, 2, 3, dtype=torch.float64, generator=generator)
    assert torch.autograd.gradcheck(_Gated.apply, (gate.requires_grad_(), up.requires_grad_()))


def test_everything_is_put_back_also_after_an_error_and_inside_another() -> None:
    model, before = _model(), modeling_llama.apply_rotary_pos_emb
    kinds = [type(m) for m in model.modules()]

    def interrupted() -> None:
        with fused(model):
            with fused(model):
                assert modeling_llama.apply_rotary_pos_emb is rotated
            assert modeling_llama.apply_rotary_pos_emb is rotated
            assert isinstance(model.model.norm, _FusedNorm)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert modeling_llama.apply_rotary_pos_emb is before
    assert [type(m) for m in model.modules()] == kinds


def test_what_computes_something_else_is_kept() -> None:
    assert not is_rms_norm(nn.LayerNorm(8, bias=False).requires_grad_(False))
    assert not is_rms_norm(LlamaRMSNorm(8))  # its weight is trained, and wants a gradient
    assert is_rms_norm(LlamaRMSNorm(8).requires_grad_(False))
    assert is_rotary(modeling_llama.apply_rotary_pos_emb)
    assert not is_rotary(modeling_cohere.apply_rotary_pos_emb)  # neighbours, not halves
    assert not is_rotary(rotated)
    assert not is_rotary(None)


class Limited(LlamaMLP):
    """As some have it: a limit that small numbers do not reach."""

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x).clamp(max=10.0)) * self.up_proj(x))  # type: ignore[no-any-return]


class Dropped(LlamaMLP):
    """One that drops in training alone."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(x), 0.1, self.training)


class Scaled(LlamaMLP):
    """One with a factor of its own, which is 1 at first."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.factor


def test_gated_layers_of_another_kind_are_kept() -> None:
    config = LlamaConfig(**SIZES)
    assert is_swiglu(LlamaMLP(config))
    assert is_swiglu(LlamaMLP(config).to(torch.bfloat16))
    for kind in (Limited, Dropped, Scaled):
        for layer in (kind(config), kind(config).eval()):
            assert not is_swiglu(layer)
    for act in ("gelu", "gelu_pytorch_tanh", "relu"):
        layer = LlamaMLP(LlamaConfig(**SIZES, hidden_act=act)).to(torch.bfloat16)
        nn.init.zeros_(layer.down_proj.weight)
        assert not is_swiglu(layer)


def test_a_trial_of_a_gated_layer_is_seen_by_nobody_and_leaves_everything_as_it_was() -> None:
    layer = LlamaMLP(LlamaConfig(**SIZES)).train()
    seen: list[nn.Module] = []
    layer.up_proj.register_forward_hook(lambda m, *_: seen.append(m))
    layer.down_proj.eval()
    children, state = dict(layer.named_children()), torch.get_rng_state()
    assert is_swiglu(layer)
    assert not seen
    assert dict(layer.named_children()) == children
    assert torch.equal(torch.get_rng_state(), state)
    assert [layer.training, layer.down_proj.training] == [True, False]
    watched = LlamaMLP(LlamaConfig(**SIZES))
    watched.act_fn.register_forward_hook(lambda *_: None)
    assert not is_swiglu(watched)


class Gated(LlamaRMSNorm):
    """As several hybrids have it: the gate may be left out."""

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        return super().forward(x if gate is None else x * gate.sigmoid())


def test_a_gate_goes_to_the_librarys_own_norm() -> None:
    """One gated norm does without its gate, and is given one all the same; another fails without."""
    x, gate = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0)).unbind()
    for kind, alone in ((Gated, True), (Qwen3NextRMSNormGated, False)):
        norm = kind(8).requires_grad_(False)
        assert is_rms_norm(norm) == alone
        expected = norm(x, gate)
        with fused(norm):
            assert torch.equal(norm(x, gate), expected)


def test_another_dtype_is_another_function() -> None:
    """A rotation in float32 that gives q's dtype back, where ours would give float32; a norm's weight in float32."""

    def wide(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> tuple[Tensor, Tensor]:
        turned = modeling_llama.apply_rotary_pos_emb(q.float(), k.float(), cos.float(), sin.float(), unsqueeze_dim)
        return turned[0].to(q.dtype), turned[1].to(k.dtype)

    assert not is_rotary(wide)
    norm = LlamaRMSNorm(32).requires_grad_(False)
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    expected = norm(x)
    with fused(norm):
        assert norm(x).dtype == expected.dtype == torch.float32
        assert torch.equal(norm(x), expected)
