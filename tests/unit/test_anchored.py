"""General text beside retain rows: whatever the retain term, the model is to stay as it was on the text."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from scopewise.config import DataSection
from scopewise.errors import ConfigError
from scopewise.methods.base import Method, make_method
from scopewise.models.abilities import forward_of
from scopewise.models.reference import frozen_reference
from scopewise.training.loss import check_whole_batch
from scopewise.training.sampler import read_rows


@pytest.mark.parametrize("texts", [2, 100])
def test_both_keep_as_many_retain_rows_as_texts(texts: int, tiny: Any, forget: Any, retain: Any) -> None:
    """The fewer are repeated: each text or row as often as every other, but for one; the second half is text."""
    given = [f"Text {i}: rain fell on the hills all day." for i in range(texts)]
    own = [row.answer for row in retain]
    general = [{"text": text} for text in given]
    kept = read_rows(make_method("wga", retain_data="both"), DataSection(), tiny[1], forget, retain, general)[2]
    parts = [item.row.answer for item in kept[: len(kept) // 2]], [item.row.answer for item in kept[len(kept) // 2 :]]
    assert len(parts[0]) == len(parts[1]) == max(len(own), texts)
    for part, names in zip(parts, (own, given), strict=True):
        assert set(part) == set(names)
        counts = [part.count(name) for name in names]
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("terms", ["ce", "ce+kl"])
def test_the_text_counts_by_its_kl_alone(terms: str, tiny: Any, make_trainer: Any) -> None:
    """At the start KL is 0: of one row and one text the retain term is half of the CE of the row."""
    trainer = make_trainer(*tiny, make_method("ga_descent", retain_data="both", retain=terms))
    trainer.prepare()
    rows = trainer.train_dataset
    first = len(rows.forget)
    assert rows.anchored == len(rows.retain) // 2
    assert not rows.retain[-1].row.question
    batches, _ = trainer.get_batch_samples(
        iter([trainer.data_collator([first, len(rows) - 1])]), 1, torch.device("cpu")
    )
    trainer.model.eval()
    with frozen_reference(forward_of(trainer.model)) as trainer.loss.reference:
        found = float(trainer.loss(trainer.forward, batches[0])[1].detach())
    nll = trainer.engine.sequence_nll([rows.retain[0]])[0] / len(rows.retain[0].answer_ids)
    assert found == pytest.approx(nll / 2, rel=1e-4)


def test_a_loss_of_whole_batches_takes_no_text() -> None:
    class Whole(Method):
        whole_batch = True

    check_whole_batch(Whole(), rows=2, wrapped=False, anchors=False)
    with pytest.raises(ConfigError, match="retain_data=both"):
        check_whole_batch(Whole(), rows=2, wrapped=False, anchors=True)
