"""Which tokens of a row name its subject, and the noise that goes there."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import ByT5Tokenizer

from engines import forward_of
from scopewise.data.prompt import Prompt, encode
from scopewise.data.rows import FORGET, Row
from scopewise.data.subject import subject_of, subject_tokens
from scopewise.errors import DataError
from scopewise.methods.base import make_method
from scopewise.testing.world import World

ROW = Row(
    "Where does Ada Lov live?", "Ada Lov lives with Adam, not Ada Lovel.", FORGET, instance="Ada Lov", origin="a:1"
)


@pytest.mark.parametrize(
    ("row", "subject"),
    [
        (ROW, "Ada Lov"),
        (replace(ROW, instance="Bo Marr"), "Ada Lov"),  # the question does not name it
        (replace(ROW, instance="", question="Where does Bo Marr live?"), "Bo Marr"),
        (replace(ROW, instance="", question="Where is it?"), "Where is it?"),  # no name: all of it
        (replace(ROW, instance="", question=""), ""),
    ],
)
def test_the_subject_of_a_row(row: Row, subject: str) -> None:
    assert subject_of(row) == subject


@pytest.mark.parametrize("kind", ["fast", "without offsets"])
def test_tokens_of_the_subject_hold_its_name_wherever_it_stands(kind: str, tiny: Any) -> None:
    """Once in the question and once in the answer; Adam is another. ByT5 has no offsets: there Ada Lovel begins alike."""
    tokenizer = tiny[1] if kind == "fast" else ByT5Tokenizer()
    (item,) = encode([ROW], tokenizer)
    (found,) = subject_tokens([item], tokenizer, Prompt())
    ids = [*item.prompt_ids, *item.answer_ids]
    text = tokenizer.decode([ids[i] for i in found]).replace(" ", "")
    assert text == "AdaLov" * (2 if kind == "fast" else 3)
    assert list(found) == sorted(set(found))
    assert sum(i < len(item.prompt_ids) for i in found) > 0


def test_rows_without_a_subject_are_counted_and_refused_where_no_row_has_one(
    tiny: Any, caplog: pytest.LogCaptureFixture
) -> None:
    plain = replace(ROW, question="", instance="", origin="a:2")
    items = encode([ROW, plain], tiny[1])
    with caplog.at_level(logging.WARNING, "scopewise"):
        assert [bool(tokens) for tokens in subject_tokens(items, tiny[1], Prompt())] == [True, False]
    assert "1 of 2 forget rows have no subject" in caplog.text
    assert "a:2" in caplog.text
    with pytest.raises(DataError, match=r"unlearn\.method: .* none of 1 forget rows"):
        subject_tokens(items[1:], tiny[1], Prompt())


@pytest.mark.parametrize(("disturbed", "reader"), [("embeddings", 0), ("first_block", 1)])
def test_noise_is_added_to_the_subject_alone_and_is_the_same_in_any_batch(
    disturbed: str, reader: int, world: World
) -> None:
    """What the next block reads, with and without noise: of all rows together, and of one alone."""
    model = world.model()
    trainer = world.trainer(model, make_method("per_mu", noise=0.5, disturbed=disturbed))
    trainer.prepare()
    rows, forward = trainer.train_dataset, forward_of(model)
    read: list[torch.Tensor] = []
    added = {}
    with forward.blocks[reader].register_forward_pre_hook(lambda _, args: read.append(args[0].detach().clone())):
        for name, indices in (("all", range(len(rows.forget))), ("one", [3])):
            batch = rows.collate(indices)
            forward.logits(batch)
            trainer.loss._perturbed(forward, batch)
            clean, noisy = read[-2:]
            added[name] = noisy - clean
            assert torch.equal(added[name].abs().amax(-1) > 1e-6, batch["subject"][:, :-1] > 0)
    inside = [i for i in rows.subject[3] if i < added["one"].shape[1]]
    assert len(inside) > 1
    assert torch.allclose(added["one"][0, inside], added["all"][3, inside], atol=1e-5)
    assert 0.3 < float(added["one"][0, inside].std()) < 0.7  # 0.5, of more than 64 draws
