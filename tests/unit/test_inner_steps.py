"""The trainer takes the inner steps that a method asks for, whatever kind of method it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from scopewise.errors import ConfigError
from scopewise.methods.base import Answers, InnerSteps, Method, make_method
from scopewise.training import refusals

RATE = 0.01


@dataclass(frozen=True, kw_only=True)
class OnlyInner(Method):
    """Trains by its inner step alone: the terms of the optimiser step weigh nothing."""

    forget_weight: float = 0.0
    retain_weight: float = 0.0
    retain: str = "ce"

    @property
    def inner(self) -> InnerSteps:
        """One step."""
        return InnerSteps(1, RATE)

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return the NLL."""
        return answers.nll()


def test_a_method_without_a_dual_variable_may_have_inner_steps(tiny: Any, make_trainer: Callable[..., Any]) -> None:
    """Two optimiser steps that change nothing, one inner step before the second: of its gradient, whose norm is above 1 and
    clipped to it, the parameters change by `RATE`."""
    model = tiny[0]
    before = [parameter.detach().clone() for parameter in model.parameters()]
    trainer = make_trainer(model, tiny[1], OnlyInner(), max_steps=2, learning_rate=1e-3, weight_decay=0.0)
    assert trainer.method.dual([], lambda: []) is None
    trainer.train()
    after = list(trainer.model.parameters())
    moved = [(a.detach() - b).square().sum() for a, b in zip(after, before, strict=True)]
    assert float(torch.stack(moved).sum().sqrt()) == pytest.approx(RATE, rel=1e-3)


def test_deepspeed_refuses_the_inner_steps_of_any_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "on_deepspeed", lambda: True)
    for method in (OnlyInner(), make_method("blade")):
        with pytest.raises(ConfigError, match="inner_steps"):
            refusals.check_deepspeed(method, "adamw_torch", 0.0)
    refusals.check_deepspeed(make_method("blade", inner_steps=0), "adamw_torch", 0.0)
