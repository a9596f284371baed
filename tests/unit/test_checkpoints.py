"""Checkpoints: when they are due, what is done with broken ones, and that the loss since the last log is the library's."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from scopewise.config import RunConfig
from scopewise.data.rows import Row
from scopewise.runs.pipeline import Pipeline
from scopewise.training.checkpoints import Checkpoints
from scopewise.training.progress import TrainingProgress
from scopewise.training.step import Unlogged


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
    """60 s to save. The first comes after 300 s, before its cost is known. For the second, 120 s of saving are to be 2 % of
    6000 s: at the end of step 594, after 5940 s of steps and 60 s of saving. Then 60 times 60 s lie between two."""
    found, share = saved_at(5.0, 10.0, 60.0, 10_000)
    assert found[:4] == [30, 594, 954, 1314]
    assert share < 0.02


def test_saving_that_gets_slower_stays_below_two_percent() -> None:
    """Each save takes twice as long as the one before it, as on a disk that fills up or a file system that others use."""
    now, cost, spent, saved = 0.0, 0.5, 0.0, 0
    callback = Checkpoints(1.0, lambda: now)
    callback.on_train_begin(None, None, None)
    for step in range(1, 20_000):
        now += 5.0
        control = SimpleNamespace(should_save=False)
        callback.on_step_end(None, SimpleNamespace(global_step=step, max_steps=20_000), control)
        if control.should_save:
            now, spent, saved, cost = now + cost, spent + cost, saved + 1, 2 * cost
            callback.on_save(None, None, None)
            assert spent <= 0.04 * now  # the last one was twice what could be known
    assert saved >= 8
    assert spent == pytest.approx(callback.saving_seconds)


def test_none_asks_for_none() -> None:
    assert saved_at(None, 100.0, 1.0, 1000)[0] == []


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


def test_a_training_with_a_slow_disk_is_saved_no_more_than_its_time_allows(
    tiny: Any, make_trainer: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real training whose every save takes 60 steps' time: after the first one there is no time for another."""
    model, tokenizer = tiny
    now = 0.0
    trainer = make_trainer(model, tokenizer, "gradient_ascent", max_steps=12, save_strategy="no")
    kept = trainer._save_checkpoint
    saves = 0

    def slow(*args: Any, **kwargs: Any) -> None:
        nonlocal now, saves
        now, saves = now + 3600.0, saves + 1
        kept(*args, **kwargs)

    monkeypatch.setattr(trainer, "_save_checkpoint", slow)
    trainer.add_callback(Checkpoints(1.0, lambda: now + 60.0 * trainer.state.global_step))
    trainer.train()
    assert saves == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["checkpoint-1"]


def config_in(folder: Path, data: Path) -> RunConfig:
    """Two epochs of two steps, each of which is saved; the last two checkpoints are kept."""
    return RunConfig.model_validate(
        {
            "run": {"dir": str(folder)},
            "model": {"tiny": {"width": 16, "layers": 1, "heads": 2, "vocab_size": 300}},
            "data": {"benchmark": "jsonl", "path": str(data)},
            "finetune": {"num_train_epochs": 2, "batch_size": 8, "save_steps": 1, "learning_rate": 1e-2},
            "evaluate": {"splits": ["train"], "generate_splits": [], "direct_splits": []},
        }
    )


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: Any, forget: list[Row], retain: list[Row]) -> Callable[[Path], RunConfig]:
    """Return a function that copies a run folder whose fine-tuning was interrupted in step 4, with checkpoints 2 and 3."""
    made = tmp_path_factory.mktemp("made")
    data = made / "rows.jsonl"
    rows = [{"question": r.question, "answer": r.answer, "scope": r.scope} for r in (*forget, *retain)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def stop(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            raise KeyboardInterrupt
        kept(self, args, state, control, **kwargs)

    kept = TrainingProgress.on_step_begin
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingProgress, "on_step_begin", stop)
        pipeline = Pipeline(config_in(made / "run", data))
        with pytest.raises(KeyboardInterrupt), pipeline.folder:
            pipeline.finetuned("target")

    def copied(folder: Path) -> RunConfig:
        shutil.copytree(made / "run", folder)
        return config_in(folder, data)

    return copied


def _halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _emptied(path: Path) -> None:
    """As long as before, and with nothing in it."""
    path.write_text("[]" + " " * (path.stat().st_size - 2))


@pytest.mark.parametrize(
    ("file", "how"),
    [
        ("trainer_state.json", _halved),
        pytest.param(
            "trainer_state.json",
            _emptied,
            marks=pytest.mark.long,
        ),
        ("optimizer.pt", _halved),
        pytest.param("scheduler.pt", Path.unlink, marks=pytest.mark.long),
        pytest.param("rng_state.pth", _halved, marks=pytest.mark.long),
        ("adapter_model.safetensors", Path.unlink),
        pytest.param("unlearning_state.json", _halved, marks=pytest.mark.long),
        pytest.param("cost.json", Path.unlink, marks=pytest.mark.long),
    ],
)
def test_a_broken_checkpoint_is_said_and_the_one_before_it_taken(
    file: str, how: Any, interrupted: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    results = []
    for name in ("straight", "broken"):
        config = interrupted(tmp_path / name)
        if name == "broken":
            how(tmp_path / name / "target.partial" / "checkpoints" / "checkpoint-3" / file)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "scopewise"):
            pipeline = Pipeline(config, resume=True)
            with pipeline.folder:
                results.append(load_file(pipeline.finetuned("target") / "adapter_model.safetensors"))
        said = [record.getMessage() for record in caplog.records if "checkpoint-" in record.getMessage()]
        if name == "straight":
            assert said == []
        else:
            assert len(said) == 1
            assert said[0].startswith("fine-tune target: checkpoint-3 is left out: ")
            assert file in said[0] or file == "cost.json"
            assert said[0].endswith("; training continues with checkpoint-2")
    assert results[0].keys() == results[1].keys()
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())


def test_where_every_checkpoint_is_broken_it_begins_anew(
    interrupted: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = interrupted(tmp_path / "run")
    for step in (2, 3):
        _halved(tmp_path / "run" / "target.partial" / "checkpoints" / f"checkpoint-{step}" / "optimizer.pt")
    with caplog.at_level(logging.WARNING, "scopewise"):
        pipeline = Pipeline(config, resume=True)
        with pipeline.folder:
            made = pipeline.finetuned("target")
    assert caplog.text.count("training continues from the beginning") == 2
    assert json.loads((made / "stage.json").read_text())["cost"]["steps"] == 4
