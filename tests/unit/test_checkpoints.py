"""Checkpoints by time: when they are due, and that the loss since the last log is the library's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from scopewise.config import FinetuneSection
from scopewise.pipeline import _decisive
from scopewise.training.checkpoints import Checkpoints
from scopewise.training.unlogged import Unlogged


def saved_at(minutes: float | None, step_seconds: float, save_seconds: float, steps: int) -> tuple[list[int], float]:
    """Return the steps of a simulated training that were saved, and the share of the time that saving took."""
    now = 0.0
    found = []
    callback = Checkpoints(minutes, lambda: now)
    callback.on_train_begin(None, None, None)
    for step in range(1, steps + 1):
        now += step_seconds
        control = SimpleNamespace(should_save=False)
        callback.on_step_end(None, SimpleNamespace(global_step=step, max_steps=steps), control)
        if control.should_save:
            now += save_seconds
            callback.on_save(None, None, None)
            found.append(step)
    return found, len(found) * save_seconds / now


def test_a_training_of_slow_steps_is_saved_every_few_minutes() -> None:
    """7 seconds a step, 5 minutes = 300 s: the 43rd step is the first that ends after 300 s (301 s)."""
    found, share = saved_at(5.0, 7.0, 1.0, 200)
    assert found == [43, 86, 129, 172]
    assert share < 0.02


def test_slow_saving_is_spaced() -> None:
    """60 s to save: 50 times as long lies between two, so that 2 % is kept but for the first, before it was measured."""
    found, share = saved_at(5.0, 10.0, 60.0, 10_000)
    assert found[:3] == [30, 330, 630]  # after 300 s, then every 3000 s
    assert share < 0.0201


def test_none_asks_for_none() -> None:
    assert saved_at(None, 100.0, 1.0, 1000)[0] == []


def test_how_often_is_saved_decides_no_stage() -> None:
    assert _decisive(FinetuneSection()) == _decisive(FinetuneSection(checkpoint_minutes=1, checkpoint_steps=3))


def test_the_loss_since_the_last_log_goes_through_a_checkpoint() -> None:
    """Losses 1, 2, 6 in two steps: the mean per step is 4.5, wherever it was interrupted."""
    whole = Unlogged()
    for loss in (1.0, 2.0, 6.0):
        whole.add(torch.tensor(loss))
    whole.steps = 2
    part = Unlogged(3.0, 1)
    part.add(torch.tensor(6.0))
    part.steps += 1
    assert whole.take(lambda x: x) == part.take(lambda x: x) == 4.5
    assert (whole.steps, float(whole.loss)) == (0, 0.0)


def test_by_time_in_a_training(tiny: Any, make_trainer: Any, tmp_path: Any) -> None:
    """Steps of a minute, a minute between two checkpoints: every step but the last is saved."""
    model, tokenizer = tiny
    trainer = make_trainer(model, tokenizer, "gradient_ascent", max_steps=3, save_strategy="no")
    trainer.add_callback(Checkpoints(1.0, lambda: 60.0 * trainer.state.global_step))
    trainer.train()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["checkpoint-1", "checkpoint-2"]


@pytest.mark.parametrize("steps", [1, 3])
def test_what_is_logged_is_what_the_library_would_log(steps: int, tiny: Any, make_trainer: Any) -> None:
    """The library's sum, read from its own `train_loss`: the mean of all steps is the mean of what was logged."""
    model, tokenizer = tiny
    how = {"max_steps": 6, "logging_strategy": "steps", "logging_steps": float(steps), "gradient_accumulation_steps": 2}
    trainer = make_trainer(model, tokenizer, "ga_descent", **how)
    result = trainer.train()
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(logged) == 6 // steps
    assert result.training_loss == pytest.approx(sum(logged) / len(logged), rel=1e-6)
