"""The engine: what a model allows is found out once, and everything but `lend` leaves the model as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engines import forward_of
from scopewise import Engine
from scopewise.config import DataSection
from scopewise.data.batch import collate
from scopewise.errors import DataError, ModelError
from scopewise.models.forward import Abilities, Forward
from scopewise.models.kernels import NAMES, Kernels
from scopewise.models.load import save_model


def test_what_a_llama_allows(tiny: Any) -> None:
    assert Engine(*tiny).forward.abilities == Abilities(True, True, True, True)


def test_construction_asks_ten_forwards_and_leaves_the_model_as_it_was(tiny: Any) -> None:
    model, tokenizer = tiny
    model.train()
    model.model.layers[0].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes, state = [m.training for m in model.modules()], torch.get_rng_state()
    calls: list[int] = []
    handle = model.model.register_forward_hook(lambda *_: calls.append(1))
    Engine(model, tokenizer)
    handle.remove()
    assert len(calls) <= 14
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("adapted", [False, True])
def test_nothing_is_asked_afterwards(adapted: bool, tiny: Any, trained_adapter: Any, encoded: Any) -> None:
    """Scoring forwards the batches of its rows, and no trial; nor is one made to see which adapters may be merged."""
    engine = Engine(*(trained_adapter if adapted else tiny))
    calls: list[int] = []
    engine.model.register_forward_hook(lambda *_: calls.append(1))
    engine.score([item.pair for item in encoded[0]])
    assert len(calls) == 1


@pytest.mark.parametrize("names", [(), *((name,) for name in NAMES), NAMES])
def test_kernels_change_nothing_but_rounding(names: tuple[str, ...], trained_adapter: Any, encoded: Any) -> None:
    """Logits, losses and gradients with some kernels, and by the model's own forward of each row alone."""
    model = trained_adapter[0]
    forward = Forward(model, forward_of(model).abilities, Kernels(names))
    assert replace(forward.abilities, mergeable=frozenset()) == Abilities(True, True, True, True)
    items = [*encoded[0], *encoded[1]]
    alone = []
    with torch.no_grad():
        for item in items:
            ids = torch.tensor([item.prompt_ids + item.answer_ids])
            logits = model(ids).logits[0, len(item.prompt_ids) - 1 : -1]
            alone.append(torch.nn.functional.cross_entropy(logits, ids[0, len(item.prompt_ids) :], reduction="none"))
    batch = collate(items)
    with forward.evaluating():
        assert torch.allclose(forward.nll(batch, packed=True), torch.cat(alone), atol=1e-4)
    with forward.kernels.training(model):
        forward.nll(batch, packed=True).mean().backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    Forward(model).nll(batch).mean().backward()
    expected = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[n], g, rtol=1e-3, atol=1e-6) for n, g in expected.items())


def test_off_is_a_forward_without_kernels(tiny: Any, encoded: Any) -> None:
    """No packed batch, no layer replaced, no weight merged; to the last digit what a plain forward gives."""
    engine = Engine(*tiny, kernels="off")
    batch = collate(encoded[0])
    assert "order" not in engine.forward._pack(batch)
    with engine.forward.kernels.training(engine.model):
        assert not any("forward" in vars(m) for m in engine.model.modules())
    with torch.no_grad():
        assert torch.equal(engine.forward.logits(batch, packed=True), Forward(engine.model).logits(batch))


def test_a_lent_model_comes_back(trained_adapter: Any) -> None:
    engine = Engine(*trained_adapter)
    engine.model.train()
    engine.model.requires_grad_(False)
    before = {name: value.clone() for name, value in engine.model.state_dict().items()}

    def changed() -> None:
        with engine.lend() as model, torch.no_grad():
            model.requires_grad_(True).eval()
            for parameter in model.parameters():
                parameter.add_(1.0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        changed()
    assert all(torch.equal(value, before[name]) for name, value in engine.model.state_dict().items())
    assert not any(p.requires_grad for p in engine.model.parameters())
    assert engine.model.training


def test_rows_are_put_as_the_data_settings_say(tiny: Any, forget: Any) -> None:
    engine = Engine(*tiny, DataSection(prompt="Q: {question} A: ", max_length=300))
    (item,) = engine.encode(forget[:1])
    assert engine.tokenizer.decode(item.prompt_ids).startswith("Q: ")
    with pytest.raises(DataError, match="max_length"):
        Engine(*tiny, DataSection(max_length=8)).encode(forget)
    assert Engine(*tiny, DataSection(max_length=8, over_length="drop")).encode(forget) == []


def test_a_folder_is_loaded_as_it_was_saved(tiny: Any, encoded: Any, tmp_path: Path) -> None:
    save_model(*tiny, tmp_path / "model")
    loaded = Engine.load(tmp_path / "model", name="loaded")
    batch = collate(encoded[0])
    with torch.no_grad():
        assert torch.equal(loaded.forward.logits(batch), Forward(tiny[0]).logits(batch))


def test_another_models_tokenizer_is_refused(tiny: Any) -> None:
    model, tokenizer = tiny
    tokenizer.add_tokens([f"word{i}" for i in range(9)])
    with pytest.raises(ModelError, match="model: .* 300 tokens"):
        Engine(model, tokenizer)
