"""Fixtures of the comparisons."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from ours import items, one_step
from tiny import FORGET, REPEATS, RETAIN, VOCAB, random_labels
from torch import Tensor

from scopewise.data.batch import length_batches
from scopewise.data.prompt import Encoded

Step = Callable[..., tuple[float, dict[str, Tensor], Any]]


@pytest.fixture
def step(tmp_path: Path) -> Step:
    """Return `ours.one_step` with a folder of its own."""
    return partial(one_step, tmp_path)


@pytest.fixture
def labels_as_recorded(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Encoded]]:
    """Make the localizers' random labels those of `random_labels`; return what to call them with."""
    given = {"forget": FORGET, "retain": RETAIN}
    draws = []
    for pairs in given.values():
        # A localizer draws once per batch, and all rows fit into one: the longest row first.
        (order,) = length_batches([len(p) + len(a) for p, a in pairs], 4096)
        labels = [[x for i in order for x in random_labels(pairs[i], repeat)] for repeat in range(REPEATS)]
        draws.append(torch.tensor(labels))
    queue = iter(draws)

    def randint(high: int, size: tuple[int, ...], generator: torch.Generator) -> Tensor:
        drawn = next(queue)
        assert (high, size) == (VOCAB, tuple(drawn.shape))
        return drawn

    monkeypatch.setattr(torch, "randint", randint)
    return {scope: items(pairs, scope) for scope, pairs in given.items()}
