"""How far is a model from another on text that has nothing to do with the rows?"""

from __future__ import annotations

import torch

from scopewise.data.builtin import read_general
from scopewise.models.engine import Engine

_LONGEST = 200
"""Tokens of a text that are read."""


@torch.no_grad()
def drift(first: Engine, engine: Engine, texts: int = 20) -> float:
    """Return the KL (nats per token) from the first model to another of the same tokenizer, over all positions of the texts."""
    total, count = 0.0, 0
    for row in read_general()[:texts]:
        ids = torch.tensor([first.tokenizer(row.answer)["input_ids"][:_LONGEST]])
        p, q = (one.model(input_ids=ids).logits.log_softmax(-1) for one in (first, engine))
        total += float((p.exp() * (p - q)).sum())
        count += ids.numel()
    return total / count
