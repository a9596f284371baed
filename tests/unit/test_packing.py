"""Rows one after the other: the same numbers, without padding in any layer but attention."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from engines import forward_of
from scopewise.data.batch import Batch, collate
from scopewise.data.prompt import Encoded
from scopewise.data.rows import Row
from scopewise.models.architecture import decoder_blocks
from scopewise.models.flops import FlopCounter
from scopewise.models.kernels.packing import packed, packed_attention

SIZES: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "attn_implementation": "sdpa",
}  # fmt: skip


@pytest.fixture
def batch() -> Batch:
    """Rows of 8, 2 and 4 tokens that are read."""
    lengths = ((5, 4), (1, 2), (2, 3))
    ids = iter(range(10, 40))
    return collate(
        [
            Encoded(Row("q", "a", "forget"), tuple(next(ids) for _ in range(p)), tuple(next(ids) for _ in range(a)))
            for p, a in lengths
        ]
    )


def _model(kind: str) -> Any:
    torch.manual_seed(0)
    models: dict[str, Any] = {
        "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES)),
        "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=8)),
        "mistral_whole": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=None)),
        "gpt2": lambda: GPT2LMHeadModel(
            GPT2Config(
                vocab_size=300,
                n_embd=32,
                n_layer=2,
                n_head=4,
                attn_implementation="sdpa",
                bos_token_id=1,
                eos_token_id=2,
            )
        ),
        "bloom": lambda: BloomForCausalLM(BloomConfig(vocab_size=300, hidden_size=32, n_layer=2, n_head=4)),
    }
    return models[kind]().eval()


@pytest.mark.parametrize("kind", ["qwen3", "mistral_whole", "gpt2"])
def test_outputs_and_gradients_are_the_same(kind: str, batch: Batch) -> None:
    """Also with grouped heads, and with positions that are learned."""
    model = _model(kind).double()
    assert forward_of(model).abilities.packs
    outputs, gradients = [], []
    for line in (False, True):
        found = forward_of(model).logits(batch, packed=line)
        found.square().sum().backward()
        outputs.append(found.detach())
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters()})
        model.zero_grad()
    assert torch.allclose(outputs[0], outputs[1], rtol=1e-10)
    assert all(torch.allclose(g, gradients[1][n], rtol=1e-8, atol=1e-12) for n, g in gradients[0].items())


def test_no_layer_but_attention_sees_padding(trained_adapter: Any, batch: Batch) -> None:
    model = trained_adapter[0]
    seen: list[tuple[int, ...]] = []
    assert forward_of(model).abilities.packs
    decoder_blocks(model)[0].mlp.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape[:2])))
    plain = forward_of(model).nll(batch)
    assert torch.allclose(forward_of(model).nll(batch, packed=True), plain, atol=1e-5)
    states = [forward_of(model).head_inputs(batch, packed=packed) for packed in (True, False)]
    assert torch.allclose(*states, atol=1e-5)
    assert (3, 8) in seen
    assert (1, 14) in seen
    assert model.config._attn_implementation == "sdpa"


def test_the_same_work_is_counted(tiny: Any, batch: Batch) -> None:
    counts, forward = [], forward_of(tiny[0])
    for line in (False, True):
        with FlopCounter() as work, torch.no_grad():
            forward.logits(batch, packed=line)
        counts.append((work.tokens, work.operations))
    assert counts[0] == counts[1]
    assert counts[0][0] == 14


@pytest.mark.parametrize("kind", ["mistral", "bloom"])
def test_models_with_another_attention_keep_their_rows_apart(kind: str, batch: Batch) -> None:
    """A window that would have to be cut; biases for distances, from the mask."""
    model = _model(kind)
    forward = forward_of(model)
    assert forward.abilities.packs == (kind == "mistral")
    assert forward.window == (8 if kind == "mistral" else None)
    longer = {**batch, "attention_mask": torch.nn.functional.pad(batch["attention_mask"], (0, 1))}
    assert "order" not in forward._pack(longer)
    assert ("order" in forward._pack(batch)) == (kind == "mistral")
    assert torch.allclose(forward.logits(batch, packed=True), forward.logits(batch), atol=1e-5)


def test_rows_of_like_length_and_blocks_that_are_computed_again_stay_as_they_are(tiny: Any, batch: Batch) -> None:
    model = tiny[0]
    assert "order" in forward_of(model)._pack(batch)
    assert "order" not in forward_of(model)._pack({**batch, "attention_mask": torch.ones_like(batch["attention_mask"])})
    model.activation_checkpointing_enable({"use_reentrant": False})
    assert "order" not in forward_of(model)._pack(batch)
    model.activation_checkpointing_disable()
    model.set_attn_implementation("eager")
    assert "order" not in forward_of(model)._pack(batch)


def test_another_thread_is_not_concerned(tiny: Any, batch: Batch) -> None:
    """Its forwards of the same model, with padding on the left and a mask, are what they were."""
    model, mask = tiny[0], torch.ones(2, 6, dtype=torch.long)
    mask[0, :3] = 0
    given = {"input_ids": torch.arange(4, 16).view(2, 6), "attention_mask": mask}
    found: list[Tensor] = []

    def other() -> None:
        with torch.no_grad():
            found.append(model(**given).logits)

    other()
    with packed_attention(model, packed(batch)):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert torch.allclose(found[0][:, 3:], found[1][:, 3:], atol=1e-6)
