"""The reference in its three forms: it keeps the state before training, restores flags, and copies no base."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from engines import forward_of
from scopewise.config import LoraSection
from scopewise.data.batch import collate
from scopewise.models.adapters import changes_nothing, lora_config, with_adapter
from scopewise.models.reference import frozen_reference

FORMS = ["fresh", "continued", "full"]


@pytest.fixture(params=FORMS)
def model(request: Any) -> Any:
    """A model in training mode, with every third trainable parameter frozen, as a region leaves it."""
    if request.param == "continued":
        model = request.getfixturevalue("trained_adapter")[0]
    else:
        model = request.getfixturevalue("tiny")[0]
        if request.param == "fresh":
            model = with_adapter(model, lora_config(LoraSection(r=2, lora_alpha=4, lora_dropout=0.1)), 0)
    for i, parameter in enumerate([p for p in model.parameters() if p.requires_grad]):
        parameter.requires_grad_(i % 3 != 0)
    return model.train()


def logits_of(model: Any, encoded: Any) -> torch.Tensor:
    training = model.training
    model.eval()
    with torch.no_grad():
        logits = forward_of(model).logits(collate(encoded[0]))
    model.train(training)
    return logits


def move(model: Any) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))


def test_reference_gives_the_logits_before_training(model: Any, encoded: Any) -> None:
    before = logits_of(model, encoded)
    with frozen_reference(forward_of(model)) as reference:
        move(model)
        for _ in range(2):
            with reference() as frozen:
                assert not frozen.model.training
                got = frozen.logits(collate(encoded[0]))
            assert torch.equal(got, before)
            assert not got.requires_grad
        assert float((logits_of(model, encoded) - before).abs().max()) > 1e-3


def test_model_trains_on_after_the_reference_was_looked_at(model: Any, encoded: Any) -> None:
    """Modes and `requires_grad` are as before, inside the context and after it, and the model's own state is back."""
    flags = {n: p.requires_grad for n, p in model.named_parameters()}
    with frozen_reference(forward_of(model)) as reference:
        move(model)
        moved = logits_of(model, encoded)
        with reference() as frozen:
            frozen.logits(collate(encoded[0]))
        assert {n: p.requires_grad for n, p in model.named_parameters() if n in flags} == flags
        assert model.training
        assert torch.equal(logits_of(model, encoded), moved)
    assert {n: p.requires_grad for n, p in model.named_parameters()} == flags  # the very same names, too
    assert torch.equal(logits_of(model, encoded), moved)


def test_an_error_inside_leaves_the_model_as_it_was(model: Any, encoded: Any) -> None:
    flags = {n: p.requires_grad for n, p in model.named_parameters()}
    before = logits_of(model, encoded)
    with pytest.raises(KeyboardInterrupt), frozen_reference(forward_of(model)) as reference, reference():
        raise KeyboardInterrupt
    assert {n: p.requires_grad for n, p in model.named_parameters()} == flags
    assert torch.equal(logits_of(model, encoded), before)


def test_no_second_copy_of_the_base(model: Any, request: Any) -> None:
    """With adapters the base's memory is the model's own; of one that was there before only what is trained is copied."""
    form = request.node.callspec.params["model"]
    before = {p.data_ptr() for p in model.parameters()}
    trained = {p.data_ptr() for p in model.parameters() if p.requires_grad}
    count = sum(p.numel() for p in model.parameters())
    with frozen_reference(forward_of(model)) as reference, reference() as frozen:
        inside = sum(p.numel() for p in frozen.model.parameters())
        shared = before & {p.data_ptr() for p in frozen.model.parameters()}
        if form == "full":
            assert not shared
            assert inside == count
        else:
            assert shared == (before - trained if form == "continued" else before)
            assert inside == count


def test_which_adapter_changes_nothing(tiny: Any) -> None:
    model = with_adapter(tiny[0], lora_config(LoraSection(r=2)), 0)
    assert changes_nothing(model)
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if "lora_B" in n)[0, 0] = 1e-6
    assert not changes_nothing(model)
