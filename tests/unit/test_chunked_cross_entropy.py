"""Logits in chunks, matrices in groups: the same numbers, with less of them at a time."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM

from engines import forward_of
from often import often
from scopewise.config import LoraSection
from scopewise.data.batch import Unit, collate, collate_units
from scopewise.localizers.base import Scopes
from scopewise.localizers.gradient import Gradient
from scopewise.models import chunked_cross_entropy
from scopewise.models.adapters import lora_config
from scopewise.models.architecture import decoder_blocks, lm_head
from scopewise.models.engine import Engine
from scopewise.models.gradients import mean_gradients
from scopewise.models.matrices import gradient_groups, matrices
from scopewise.models.reference import frozen_reference
from scopewise.ops import token_kl, token_log_probs, token_statistics

NONE = lora_config(LoraSection(r=2, lora_alpha=4, lora_dropout=0.0))

TRIAL = 13
"""Rows of logits in the trial of packing, the largest there is; that of the head has 5, and a chunk 3."""


@pytest.fixture
def few_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of three tokens of the tiny model's 300 words."""
    monkeypatch.setattr(chunked_cross_entropy, "CPU_CHUNK_LOGITS", 900)
    monkeypatch.setattr(chunked_cross_entropy, "LEAST_TOKENS", 3)


class Largest:
    """The most rows that the head gave at once."""

    def __init__(self, model: Any) -> None:
        self.rows = 0
        lm_head(model).register_forward_hook(self.see)

    def see(self, _: Any, __: Any, output: torch.Tensor) -> None:
        self.rows = max(self.rows, output.numel() // output.shape[-1])


def test_chunked_nll_and_its_gradient_are_exact(trained_adapter: Any, encoded: Any, few_logits: None) -> None:
    """In float64, against the formula on all logits."""
    model = trained_adapter[0].double()
    model.get_base_model().lm_head.requires_grad_(False)
    batch = collate(encoded[0])
    (-token_log_probs(forward_of(model).logits(batch), batch["label"])).square().sum().backward()
    whole = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    forward, largest = forward_of(model), Largest(model)
    forward.nll(batch).square().sum().backward()
    assert largest.rows == 3
    assert len(whole) > 10
    for name, parameter in model.named_parameters():
        if name in whole:
            assert torch.allclose(parameter.grad, whole[name], rtol=1e-9, atol=1e-12), name


def test_chunked_kl_and_its_gradient_are_exact(trained_adapter: Any, encoded: Any, few_logits: None) -> None:
    model, batch = trained_adapter[0].double(), collate(encoded[0])
    with torch.no_grad(), model.disable_adapter():
        reference, before = forward_of(model).logits(batch), forward_of(model).head_inputs(batch)
    token_kl(reference, forward_of(model).logits(batch)).square().sum().backward()
    whole = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    forward_of(model).kl_of(before, forward_of(model).head_inputs(batch)).square().sum().backward()
    for name, parameter in model.named_parameters():
        if name in whole:
            assert torch.allclose(parameter.grad, whole[name], rtol=1e-9, atol=1e-12), name


@pytest.mark.parametrize(
    "method",
    often(["gradient_ascent", "ga_kl", "npo", "dpo", "wga", "relearn", "memflex"], {"ga_kl", "dpo", "memflex"}),
)
def test_a_step_in_chunks_is_the_same_step(
    method: str, tiny: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no more than a chunk of logits exists in it."""
    after = []
    monkeypatch.setattr(chunked_cross_entropy, "LEAST_TOKENS", 3)
    for chunk in (2**25, 900):
        trainer = make_trainer(copy.deepcopy(tiny[0]), tiny[1], method, peft_config=NONE, max_steps=2)
        largest = Largest(trainer.model)
        monkeypatch.setattr(chunked_cross_entropy, "CPU_CHUNK_LOGITS", chunk)
        trainer.train()
        after.append({n: p.detach().clone() for n, p in trainer.model.named_parameters() if "lora_" in n})
        if chunk == 900:
            assert largest.rows <= TRIAL
    assert any(bool(value.any()) for name, value in after[0].items() if "lora_B" in name)
    assert all(torch.allclose(after[0][n], after[1][n], atol=1e-6) for n in after[0])


def test_many_words_come_for_some_tokens_at_a_time_still(trained_adapter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked_cross_entropy, "CPU_CHUNK_LOGITS", 1)
    least = chunked_cross_entropy.LEAST_TOKENS
    assert chunked_cross_entropy.chunk_tokens(lm_head(trained_adapter[0]), torch.zeros(1, 1)) == least


@pytest.mark.parametrize("moments", [True, False])
def test_statistics_in_chunks_are_those_of_all_logits(
    moments: bool, trained_adapter: Any, encoded: Any, few_logits: None
) -> None:
    """Of a head that is trained too, since nothing is trained here."""
    model, batch = trained_adapter[0].requires_grad_(True), collate(encoded[0])
    largest = Largest(model)
    with torch.no_grad():
        expected = token_statistics(forward_of(model).logits(batch), batch["label"], moments)
        assert largest.rows > TRIAL
        largest.rows = 0
        found = forward_of(model).statistics(batch, moments)
    assert largest.rows == TRIAL
    assert torch.equal(found.predicted, expected.predicted)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours.float(), theirs.float(), atol=1e-5, equal_nan=True)
    assert not forward_of(model).chunked


@pytest.mark.parametrize("plain_head", [True, False])
def test_the_head_runs_once_where_answers_begin_alike(
    plain_head: bool, trained_adapter: Any, encoded: Any, few_logits: None
) -> None:
    """And each of them gets the statistics of its own token there."""
    model = trained_adapter[0]
    units = [
        Unit(i.prompt_ids, (i.answer_ids, i.answer_ids[::-1], i.answer_ids[:-1], i.answer_ids)) for i in encoded[0]
    ]
    batch = collate_units(units)
    forward = forward_of(model)
    forward.abilities = replace(forward.abilities, plain_head=plain_head)
    rows: list[int] = []
    lm_head(model).register_forward_hook(lambda *seen: rows.append(seen[-1].numel() // seen[-1].shape[-1]))
    with torch.no_grad():
        expected = token_statistics(forward.logits(batch), batch["label"])
        rows.clear()
        found = forward.statistics(batch, moments=True)
    assert sum(rows) <= len(batch["position"].unique()) < 0.7 * len(batch["label"])
    assert torch.equal(found.predicted, expected.predicted)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours.float(), theirs.float(), atol=1e-5)


def test_methods_that_read_logits_get_them_all(tiny: Any, make_trainer: Any, few_logits: None) -> None:
    trainer = make_trainer(tiny[0], tiny[1], "undial", peft_config=NONE)
    largest = Largest(trainer.model)
    trainer.train()
    assert largest.rows > TRIAL


def test_a_trained_head_and_capped_logits_are_no_plain_head(tiny: Any, few_logits: None, encoded: Any) -> None:
    assert not forward_of(tiny[0]).chunked  # its parameters require gradients
    assert forward_of(tiny[0].requires_grad_(False)).chunked
    capped = Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=300, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, head_dim=16, final_logit_softcapping=0.1, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        )
    ).requires_grad_(False)  # fmt: skip
    assert not forward_of(capped).chunked
    batch = collate(encoded[0])
    assert torch.equal(
        forward_of(capped).nll(batch), -token_log_probs(forward_of(capped).logits(batch), batch["label"])
    )


def test_kl_with_a_trained_head_is_the_same_without_gradients(tiny: Any, make_trainer: Any) -> None:
    """The model before has another head, so that its states alone do not make its logits."""
    model = tiny[0]
    trainer = make_trainer(model, tiny[1], "ga_kl", per_device_train_batch_size=16)
    trainer.prepare()
    batches, _ = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, torch.device("cpu"))
    with frozen_reference(forward_of(model)) as trainer.loss.reference:
        with torch.no_grad():
            noise = torch.randn(model.lm_head.weight.shape, generator=torch.Generator().manual_seed(0))
            model.lm_head.weight.add_(noise)
            without = float(trainer.loss(trainer.forward, batches[0])[1])
        assert without == pytest.approx(float(trainer.loss(trainer.forward, batches[0])[1].detach()), rel=1e-5)
    assert without > 0.1


def test_localization_in_chunks_is_the_same(trained_adapter: Any, encoded: Any, few_logits: None) -> None:
    model = trained_adapter[0]
    chunked = mean_gradients(forward_of(model), encoded[0], 4096, "rows", repeats=3)
    chunked_cross_entropy.CPU_CHUNK_LOGITS = 2**25  # put back by the fixture
    whole = mean_gradients(forward_of(model), encoded[0], 4096, "rows", repeats=3)
    assert all(torch.allclose(chunked[n], whole[n], rtol=1e-4, atol=1e-7) for n in whole)


@pytest.mark.parametrize("unit", often(["module", "matrix", "row", "weight"], {"module", "weight"}))
@pytest.mark.parametrize("adapted", [True, False])
def test_regions_module_by_module_are_exactly_the_same(
    unit: str, adapted: bool, trained_adapter: Any, tiny: Any, encoded: Any
) -> None:
    model = trained_adapter[0] if adapted else tiny[0]
    largest = max(p.numel() for p in matrices(model).values())
    regions = []
    for gigabytes in (None, largest * 8 / 1e9):
        settings = {"unit": unit, "gradient_gigabytes": gigabytes, "repeats": 2, "threshold": "fraction"}
        groups = gradient_groups(model, gigabytes)
        assert sorted(n for group in groups for n in group) == sorted(matrices(model))
        assert len(groups) == 1 if gigabytes is None else len(groups) > 4
        regions.append(Gradient(**settings).region(Engine(model, tiny[1]), Scopes(*encoded)))
    one, many = regions
    assert one.entries == many.entries
    assert {n: m.bits.tobytes() for n, m in one.masks.items()} == {n: m.bits.tobytes() for n, m in many.masks.items()}


def test_the_backward_pass_stops_at_the_lowest_matrix_wanted(trained_adapter: Any, encoded: Any) -> None:
    """Gradients of the last block's matrices alone: the states below carry no gradient, other matrices get none."""
    model = trained_adapter[0]
    required: dict[int, bool] = {}
    for i, block in enumerate(decoder_blocks(model)):
        block.register_forward_hook(lambda m, a, out, i=i: required.update({i: out.requires_grad}))
    wanted = [n for n in matrices(model) if ".layers.1.mlp.down_proj" in n]
    found = mean_gradients(forward_of(model), encoded[0], 4096, "rows", only=wanted)
    assert required == {0: False, 1: True}
    assert sorted(found) == sorted(wanted)
    whole = mean_gradients(forward_of(model), encoded[0], 4096, "rows")
    assert all(torch.equal(found[n], whole[n]) for n in wanted)
