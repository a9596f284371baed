"""Answers to one prompt as a tree of tokens: by hand, and as each answer alone."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from engines import forward_of
from scopewise.data.batch import Unit, collate_units
from scopewise.models.score import Pair, score_pairs


def test_what_several_answers_begin_with_stands_once() -> None:
    """After 4 5 come 7 8, which three answers begin with; then 1, and 2. The last token of an answer is not in the row."""
    unit = Unit((4, 5), ((7, 8, 1, 9), (7, 8, 2, 9), (7, 8, 9), (6,)))
    assert unit.ids == [4, 5, 7, 8, 1, 2]
    assert unit.paths == [[2, 3, 4], [2, 3, 5], [2, 3], []]
    batch = collate_units([unit, Unit((3,), ((7, 9),))])
    assert batch["input_ids"].tolist() == [[4, 5, 7, 8, 1, 2], [3, 7, 0, 0, 0, 0]]
    assert batch["position"].tolist() == [1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3, 1, 6, 7]
    assert batch["label"].tolist() == [7, 8, 1, 9, 7, 8, 2, 9, 7, 8, 9, 6, 7, 9]
    assert batch["row"].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 4, 4]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4, 4], [0, 1, 0, 0, 0, 0]]
    seen = batch["attention_mask"][0, 0] == 0
    assert [row.nonzero().flatten().tolist() for row in seen] == [
        [0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1, 2, 3, 5],
    ]  # fmt: skip


def test_answers_that_continue_each_other_need_no_mask() -> None:
    batch = collate_units([Unit((4, 5), ((7, 8, 9), (7, 8, 9, 1)))])
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1]]
    assert "position_ids" not in batch


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_each_answer_alone(tiny: Any, seed: int) -> None:
    """Random trees with few different tokens, so that answers branch at every depth, fork again, repeat and end early."""
    rng = random.Random(seed)
    pairs: list[Pair] = []
    for _ in range(5):
        prompt = tuple(rng.randrange(5, 300) for _ in range(rng.randrange(1, 9)))
        pairs += [(prompt, tuple(rng.choices((11, 12, 13), k=rng.randrange(1, 8)))) for _ in range(12)]
    forward = forward_of(tiny[0])
    assert forward.abilities.shares_prompts
    alone = score_pairs(forward, pairs, share_prompts=False)
    for together, one in zip(score_pairs(forward, pairs), alone, strict=True):
        assert together.predicted_ids == one.predicted_ids
        torch.testing.assert_close(torch.tensor(together.log_probs), torch.tensor(one.log_probs), rtol=1e-4, atol=1e-4)
