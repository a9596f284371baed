"""Tokens and operations counted against figures derived on paper, and what results say of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from engines import forward_of
from scopewise.cost import Cost
from scopewise.data.batch import Unit, collate, collate_units
from scopewise.models.flops import FlopCounter, matrix_rate


@pytest.fixture
def two_blocks() -> Any:
    """Width 8, MLP 12, 2 heads of 4, 20 words, untied head. Linear weights of a block: 4·8·8 + 3·8·12 = 544."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=20, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2,
            tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        )
    ).eval()  # fmt: skip


def units() -> Any:
    """Two rows: 3 + 2 tokens and 2 + 1. The last of a row predicts nothing and is not forwarded: 4 + 2 = 6 tokens, at 3 of
    which an answer is predicted; 4² + 2² = 20 pairs."""
    return collate_units([Unit((4, 5, 6), ((7, 8),)), Unit((4, 5), ((6,),))])


def counted(model: Any, batch: Any, what: str = "logits") -> FlopCounter:
    forward = getattr(forward_of(model), what)
    with FlopCounter() as work:
        forward(batch)
    forward(batch)  # outside: not counted
    return work


def test_a_forward(two_blocks: Any) -> None:
    """2·544 per block and token; 2·8 per block and pair; head 2·20·8 at 3 answer tokens.

    2·2·544·6 + 2·2·8·20 + 320·3 = 13056 + 640 + 960 = 14656.
    """
    with torch.no_grad():
        work = counted(two_blocks, units())
        assert (work.tokens, work.operations) == (6, 14656)
        assert counted(two_blocks, units(), "head_inputs").operations == 14656


def test_a_backward_counts_what_is_trained_and_what_is_above_it(two_blocks: Any) -> None:
    """Only the last block's down projection (96 weights) is trained: its own gradient and the head's input, 2·96·6 and
    320·3 more than the forward. With the first block's as well: that one's own, and for all of the second block the
    gradients of the inputs (2·544·6) and twice its attention's pairs (2·2·8·20)."""
    for parameter in two_blocks.parameters():
        parameter.requires_grad_(False)
    two_blocks.model.layers[1].mlp.down_proj.weight.requires_grad_(True)
    assert counted(two_blocks, units()).operations == 14656 + 1152 + 960
    two_blocks.model.layers[0].mlp.down_proj.weight.requires_grad_(True)
    more = 2 * 96 * 6 + 2 * 544 * 6 + 2 * 2 * 8 * 20
    assert counted(two_blocks, units()).operations == 14656 + 1152 + 960 + more


def test_padding_and_shared_prompts(two_blocks: Any) -> None:
    """Padding counts nothing; a prompt that two answers share counts once: 3 + 1 + 0 tokens."""
    alone = collate_units([Unit((4, 5, 6), ((7, 8),))])
    padded = {**units()}
    assert counted(two_blocks, padded).tokens == counted(two_blocks, alone).tokens + 2
    with torch.no_grad():
        assert counted(two_blocks, collate_units([Unit((4, 5, 6), ((7, 8), (9,)))])).tokens == 4
        shared = [Unit((4, 5, 6), ((7, 8, 9), (9, 8))), Unit((4,), ((7, 8), (9, 8)))]  # 3 + 2 + 1 and 1 + 1 + 1
        assert counted(two_blocks, collate_units(shared)).tokens == 9


def test_trials_on_made_up_ids_count_nothing(two_blocks: Any) -> None:
    two_blocks.requires_grad_(False)
    with FlopCounter() as work:
        assert forward_of(two_blocks).chunked
        assert forward_of(two_blocks).abilities.shares_prompts
    assert (work.tokens, work.operations) == (0, 0)


def test_every_result_reports_its_rates(tiny: Any, encoded: Any) -> None:
    batch = collate(encoded[0])
    with Cost() as cost, cost.step(), torch.no_grad():
        forward_of(tiny[0]).logits(batch)
    found = cost.document()
    assert found["tokens"] == int(batch["attention_mask"].sum())
    assert found["tokens_per_second"] == pytest.approx(found["tokens"] / found["seconds_per_step"])
    rate = matrix_rate(torch.device("cpu"), torch.float32)
    assert 1e8 < rate < 1e13
    expected = cost.work.operations / found["seconds_per_step"] / rate
    assert found["flops_utilisation"] == pytest.approx(expected)
    assert found["processes"] == 1
    with Cost() as idle, idle.step():
        pass
    assert idle.rates()["tokens_per_second"] is None
    assert idle.rates()["flops_utilisation"] is None


def test_an_interrupted_training_counts_both_parts(tiny: Any, encoded: Any) -> None:
    with Cost() as first, first.step(), torch.no_grad():
        forward_of(tiny[0]).logits(collate(encoded[0]))
    with first:
        kept = first.so_far()
    with Cost() as second:
        second.go_on_from(kept)
        with second.step(), torch.no_grad():
            forward_of(tiny[0]).logits(collate(encoded[0]))
    assert second.work.tokens == 2 * first.work.tokens
    assert second.work.operations == pytest.approx(2 * first.work.operations)
