"""Greedy tokens from a cache and without one: those of whole rows, each alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from architectures import plain
from architectures.models import build, spread
from engines import forward_of
from scopewise.models.generate import generate
from scopewise.models.steps import Steps

PROMPTS = [tuple(range(9, 9 + n)) for n in (21, 3, 8)]

KINDS = {
    "llama": True, "gemma3_text": True, "lfm2": False, "mamba": False, "rwkv": False, "recurrent_gemma": False,
    "llama4_text": False,
}  # fmt: skip
"""Whether rows go on from the library's cache, of several lengths and after some were left out."""


def made(kind: str) -> Any:
    model = build(kind, 200)
    spread(model)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_rows_go_on_as_each_alone(kind: str) -> None:
    model = made(kind)
    wanted = [plain.continued(model, prompt, 5, set()) for prompt in PROMPTS for _ in range(2)]
    rows: list[list[int]] = [[] for _ in wanted]
    alive = list(range(6))
    with torch.no_grad():
        steps = Steps(forward_of(model), PROMPTS, 2)
        for number in range(5):
            tokens = steps.logits.argmax(-1)
            for row, token in zip(alive, tokens.tolist(), strict=True):
                rows[row].append(token)
            if number == 2:  # the second prompt's first copy has ended, say
                steps.keep([0, 1, 3, 4, 5])
                tokens, alive = tokens[[0, 1, 3, 4, 5]], [0, 1, 3, 4, 5]
            steps.read(tokens)
    for row, (found, want) in enumerate(zip(rows, wanted, strict=True)):
        assert found == want[: len(found)], row
    assert [len(row) for row in rows] == [5, 5, 3, 5, 5, 5]


@pytest.mark.parametrize("kind", ["rwkv", "recurrent_gemma", "mamba"])
def test_states_that_are_no_plain_cache_are_not_gone_on_from(kind: str, tiny: Any) -> None:
    assert not forward_of(made(kind)).abilities.caches
    assert forward_of(tiny[0]).abilities.caches


def test_texts_of_a_recurrent_model_are_those_of_whole_rows(tiny: Any) -> None:
    tokenizer = tiny[1]
    model = build("rwkv", len(tokenizer))
    spread(model)
    texts = generate(forward_of(model), tokenizer, PROMPTS, 4)
    for prompt, (text,) in zip(PROMPTS, texts, strict=True):
        ids = plain.continued(model, prompt, 4, {tokenizer.eos_token_id, 2})
        assert text == tokenizer.decode(ids, skip_special_tokens=True).strip()
