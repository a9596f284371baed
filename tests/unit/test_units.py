"""Answers to one prompt as a tree of tokens: by hand, and as each answer alone."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from engines import forward_of
from scopewise.data.batch import Unit, collate_units
from scopewise.models import score as scoring
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


def test_two_prompts_that_begin_alike_share_that() -> None:
    """After 4 5 come 6 with the answers 7 8 and 7 9, and the prompt 4 5 itself with the answer 6 3."""
    unit = Unit((4, 5), ((6, 7, 8), (6, 7, 9), (6, 3)), given=(1, 1, 0))
    assert unit.ids == [4, 5, 6, 7]
    assert unit.pairs == [((4, 5, 6), (7, 8)), ((4, 5, 6), (7, 9)), ((4, 5), (6, 3))]
    batch = collate_units([unit])
    assert batch["position"].tolist() == [2, 3, 2, 3, 1, 2]
    assert batch["label"].tolist() == [7, 8, 7, 9, 6, 3]
    assert batch["row"].tolist() == [0, 0, 1, 1, 2, 2]


def asked_after(examples: list[tuple[int, ...]], questions: int, rng: random.Random) -> list[Pair]:
    """Questions of different lengths after each of some beginnings, with one to three answers each."""
    pairs: list[Pair] = []
    for example in examples:
        for _ in range(questions):
            prompt = example + tuple(rng.choices((11, 12, 13), k=rng.randrange(0, 6)))
            pairs += [
                (prompt, tuple(rng.choices((11, 12, 13), k=rng.randrange(1, 5)))) for _ in range(rng.randrange(1, 4))
            ]
    return pairs


@pytest.mark.parametrize("max_tokens", [1, 150, 4096])
@pytest.mark.parametrize("seed", range(3))
def test_prompts_after_the_same_examples_score_as_alone(
    tiny: Any, seed: int, max_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two beginnings of 80 and 100 tokens, the first 70 of which are the same; one prompt is the beginning itself."""
    rng = random.Random(seed)
    first = tuple(rng.randrange(5, 300) for _ in range(80))
    second = first[:70] + tuple(rng.randrange(5, 300) for _ in range(30))
    pairs = [*asked_after([first, second], 10, rng), (first, (11,)), ((7, 8), (9, 10))]
    forward = forward_of(tiny[0])
    assert forward.abilities.shares_prompts
    rows: list[int] = []
    real = scoring.collate_units
    monkeypatch.setattr(scoring, "collate_units", lambda units: rows.extend(map(len, units)) or real(units))
    together = score_pairs(forward, pairs, max_tokens)
    shared, rows[:] = sum(rows), []
    alone = score_pairs(forward, pairs, share_prompts=False)
    for one, other in zip(together, alone, strict=True):
        assert one.predicted_ids == other.predicted_ids
        torch.testing.assert_close(torch.tensor(one.log_probs), torch.tensor(other.log_probs), rtol=1e-4, atol=1e-4)
    assert shared < sum(rows) / (2 if max_tokens == 4096 else 1)


def test_prompts_join_while_that_saves_tokens() -> None:
    """A third prompt with 70 of 100 tokens in common saves 70 and costs 30 more, so 40, fewer than 64: it stands alone."""
    begun = tuple(range(100, 200))
    prompts = [(*begun, 1), (*begun, 2), (*begun[:70], 300)]
    units = scoring._joined({prompt: [(9, 9)] for prompt in prompts}, 4096)
    assert [(len(unit.prompt), len(unit.answers)) for unit in units] == [(100, 2), (71, 1)]


def test_a_row_of_joined_prompts_has_a_limit() -> None:
    """Of 40 prompts with 100 tokens in common and 100 of their own, ten fit into the 1,024 beside the common ones."""
    begun = tuple(range(100, 200))
    prompts = {begun + (i,) * 100: [(9, 9)] for i in range(40)}
    units = scoring._joined(prompts, 4096)
    assert [len(unit.answers) for unit in units] == [10, 10, 10, 10]
    assert all(len(unit) <= len(begun) + scoring.JOINED_TOKENS for unit in units)
