"""What a model is tried for does not depend on its weights, so that training changes nothing about it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    JambaConfig,
    JambaForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from engines import forward_of
from scopewise.data.batch import collate
from scopewise.data.prompt import Encoded
from scopewise.data.rows import Row
from scopewise.models.abilities import FAR, enlarged
from scopewise.models.architecture import attention_window, hooks
from scopewise.models.kernels.packing import packed
from scopewise.models.score import Pair, score_pairs, sequence_nll

SIZES: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "attn_implementation": "sdpa", "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip

HYBRIDS: dict[str, Any] = {
    "lfm2": lambda: Lfm2ForCausalLM(Lfm2Config(**SIZES, layer_types=["conv", "full_attention", "conv"])),
    "jamba": lambda: JambaForCausalLM(
        JambaConfig(**SIZES, attn_layer_offset=1, attn_layer_period=2, num_experts=1, mamba_d_state=4, use_mamba_kernels=False)
    ),
}  # fmt: skip


def fresh(kind: str, size: float = 1.0) -> Any:
    """Weights of std 0.02, as they are drawn, times `size`."""
    torch.manual_seed(0)
    model = HYBRIDS[kind]().eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.mul_(size)
    return model


def plain(model: Any, pair: Pair) -> float:
    """The log-probability of an answer by the library's own forward, alone."""
    prompt, answer = pair
    with torch.no_grad():
        log_p = model(torch.tensor([prompt + answer]), use_cache=False).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    return float(log_p[torch.arange(len(answer)), list(answer)].sum())


@pytest.mark.parametrize("kind", ["lfm2", "jamba"])
@pytest.mark.parametrize("size", [1e-2, 1.0, 10.0])
def test_layers_that_mix_neighbours_are_seen_whatever_their_weights(kind: str, size: float) -> None:
    """With the weights of a fresh model every logit is near 0, mixed or not."""
    model = fresh(kind, size)
    before = {n: (p.data_ptr(), p.clone()) for n, p in model.named_parameters()}
    assert not forward_of(model).abilities.packs
    assert not forward_of(model).abilities.shares_prompts
    assert forward_of(model).chunked
    assert all(p.data_ptr() == before[n][0] and torch.equal(p, before[n][1]) for n, p in model.named_parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_what_was_tried_holds_after_weights_have_grown() -> None:
    """Tried when fresh, then trained: rows of unlike length are measured as each alone is."""
    model = fresh("lfm2")
    rows = [Encoded(Row("q", "a", "forget"), tuple(range(5, 5 + n)), tuple(range(90, 94))) for n in (30, 3, 9)]
    forward = forward_of(model)
    sequence_nll(forward, rows, "before")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(12)
    found = sequence_nll(forward, rows, "after")
    assert found == pytest.approx([-plain(model, (row.prompt_ids, row.answer_ids)) for row in rows], rel=1e-5)
    batch = collate(rows)
    with torch.no_grad():
        mixed = forward.logits(packed(batch))
        assert not torch.allclose(mixed, forward.logits(batch), rtol=0.1, atol=0.1)  # packing would show


def test_a_cap_on_logits_is_seen_where_no_logit_reaches_it() -> None:
    """30 tanh(z / 30) is z to six digits for the logits of a fresh model."""
    sizes = {**SIZES, "attn_implementation": "eager", "head_dim": 8, "final_logit_softcapping": 30.0}
    model = Gemma2ForCausalLM(Gemma2Config(**sizes)).eval().requires_grad_(False)
    assert not forward_of(model).chunked
    model = Gemma2ForCausalLM(Gemma2Config(**{**sizes, "final_logit_softcapping": None})).eval().requires_grad_(False)
    assert forward_of(model).chunked


def test_a_trial_reaches_far_and_leaves_outputs_as_they_were() -> None:
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    ids = torch.arange(4, 16).view(2, 6)
    with torch.no_grad():
        before = model(ids).logits
        with enlarged(model, model.lm_head):
            assert float(model(ids).logits.square().mean().sqrt()) == pytest.approx(FAR, rel=1e-4)
            first = model(ids[:1]).logits
            assert torch.allclose(model(ids).logits[:1], first, rtol=1e-4, atol=1e-3)  # factors stay as first fixed
        assert torch.equal(model(ids).logits, before)


@pytest.mark.parametrize("moments", [True, False])
def test_answers_that_share_a_prompt_keep_the_window(moments: bool) -> None:
    """Prompts of 50, 5 and 18 tokens under a window of 16: each answer as alone, in every kind of batch."""
    torch.manual_seed(0)
    model = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=16)).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.mul_(15)
    assert forward_of(model).abilities.shares_prompts
    pairs: list[Pair] = [
        (tuple(range(9, 9 + n)), tuple(range(first, first + 4))) for n in (50, 5, 18) for first in (90, 120, 150)
    ]
    for max_tokens in (1, 10**4):
        for pair, got in zip(pairs, score_pairs(forward_of(model), pairs, max_tokens, moments=moments), strict=True):
            assert sum(got.log_probs) == pytest.approx(plain(model, pair), rel=1e-5)
    whole = copy.deepcopy(model)
    whole.config.sliding_window = None
    assert abs(plain(whole, pairs[0]) - plain(model, pairs[0])) > 0.1  # the window shows


def test_windows_are_read_from_the_configuration() -> None:
    def of(**changes: Any) -> int | None:
        config = LlamaConfig(**SIZES)
        for name, value in changes.items():
            setattr(config, name, value)
        return attention_window(LlamaForCausalLM(config))

    assert of() is None
    assert of(sliding_window=None, max_window_layers=28, sliding_window_pattern=4) is None
    assert of(sliding_window=64) == 64
    assert of(sliding_window=64, attention_chunk_size=32) == 32
    assert of(attention_window_size=7) == 7


def test_hooks_are_removed_after_a_context_that_ends_badly_or_never_begins() -> None:
    """A layer counts its calls: none is counted afterwards, whether the body failed or the second hook could not be set."""
    layer, seen = torch.nn.Linear(1, 1), []

    def call(layers: list[Any]) -> None:
        with hooks(one.register_forward_hook(lambda *_: seen.append(1)) for one in layers):
            layer(torch.ones(1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        call([layer])
    assert seen == [1]
    with pytest.raises(AttributeError):
        call([layer, None])
    layer(torch.ones(1))
    assert seen == [1]
