"""Attacks on planted models: what an attack finds, and models that hide what they know."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from scopewise.attacks.base import attacked_engine
from scopewise.attacks.suite import attack_models
from scopewise.config import AttackSection
from scopewise.data.batch import collate
from scopewise.data.prompt import encode
from scopewise.data.rows import FORGET, RETAIN, Row
from scopewise.models.abilities import forward_of
from scopewise.models.engine import Engine
from scopewise.ops import token_log_probs

World = tuple[Any, Any, Any, Any]
"""A benchmark of eight persons, its tokenizer, a target that knows them and an oracle that knows the retain rows."""


def engine(world: World, name: str, model: Any) -> Engine:
    """Return the engine of a copy of a model."""
    return attacked_engine(name, copy.deepcopy(model), copy.deepcopy(world[1]))


def leak(world: World, model: Any, attack: str, **settings: Any) -> Any:
    """Return what an attack finds on a model; the target must be 1 and the oracle 0."""
    benchmark, _, target, oracle = world
    shared = {key: settings.pop(key) for key in ("suite", "rows", "seed") if key in settings}
    section = AttackSection(attacks=(attack,), attack_args={attack: settings}, **shared)

    def of(name: str, module: Any) -> Callable[[], Engine]:
        return lambda: engine(world, name, module)

    found = attack_models(
        {"model": of("model", model)},
        of("oracle", oracle),
        of("target", target),
        benchmark,
        section,
        learning_rate=3e-3,
    )
    by_model = {attacked.model: attacked for attacked in found}
    if by_model["target"].leakage is not None and by_model["target"].leakage.value is not None:
        assert abs(by_model["target"].leakage.value - 1) < 1e-6
        assert abs(by_model["oracle"].leakage.value) < 1e-6
    return by_model["model"]


def suppressed(model: Any, tokens: list[int], bias: float) -> Any:
    """Return the model with a head that has a bias against some tokens."""
    changed = copy.deepcopy(model)
    head = nn.Linear(changed.lm_head.in_features, changed.lm_head.out_features)
    with torch.no_grad():
        head.weight.copy_(changed.lm_head.weight)
        head.bias.zero_()
        head.bias[tokens] = bias
    changed.lm_head = head
    return changed.eval().requires_grad_(False)


def ascended(world: World, steps: int = 20, rate: float = 1e-3, kept: Sequence[Row] = ()) -> Any:
    """Return the target after gradient ascent on the forget rows beside descent on others: shallow unlearning.

    The others are the retain rows, unless `kept` names some.
    """
    benchmark, tokenizer, target, _ = world
    model = copy.deepcopy(target).requires_grad_(True)
    rows = (benchmark.select(FORGET), kept or benchmark.select(RETAIN))
    forget, retain = (collate(encode(part, tokenizer)) for part in rows)
    forward = forward_of(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    for _ in range(steps):
        probability = token_log_probs(forward.logits(forget), forget["label"]).exp()  # bounded, as WGA is
        loss = probability.mean() - token_log_probs(forward.logits(retain), retain["label"]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval().requires_grad_(False)
