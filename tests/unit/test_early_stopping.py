"""Early stopping: what it warns of, when it stops, what it keeps."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from engines import forward_of
from scopewise.config import EarlyStoppingSection
from scopewise.data.batch import collate
from scopewise.data.prompt import encode
from scopewise.evaluation import score
from scopewise.methods.cross_entropy import Retrain
from scopewise.models.engine import Engine
from scopewise.models.score import hit_rate
from scopewise.ops import token_kl
from scopewise.training.arguments import UnlearningConfig
from scopewise.training.trainer import UnlearningTrainer

ADAM = {"optim": "adamw_torch", "lr_scheduler_type": "constant"}


def test_hit_rate_is_the_mean_accuracy_of_rows(tiny: Any, encoded: Any) -> None:
    model, tokenizer = tiny
    rows = score(Engine(model, tokenizer), encoded[0])
    want = sum(sum(r.hits) / len(r.hits) for r in rows) / len(rows)
    assert hit_rate(forward_of(model), encoded[0]) == pytest.approx(want, abs=1e-6)


@pytest.fixture(scope="module")
def learnt(_tiny: Any, forget: Any, retain: Any, tmp_path_factory: Any) -> tuple[Any, Any]:
    """The tiny model after it learnt the sixteen short rows."""
    model, tokenizer = copy.deepcopy(_tiny)
    args = UnlearningConfig(
        str(tmp_path_factory.mktemp("learnt")), use_cpu=True, max_steps=80, learning_rate=1e-2, warmup_steps=0.0,
        disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    rows = encode([*forget, *retain], tokenizer)  # tokenised, they are all taken: rows are selected by their scope
    UnlearningTrainer(model, Retrain(), args, forget_dataset=rows, processing_class=tokenizer, region="all").train()
    return model.eval(), tokenizer


def stopping(make_trainer: Any, learnt: Any, method: str, settings: dict[str, Any], **args: Any) -> Any:
    model, tokenizer = copy.deepcopy(learnt)
    return make_trainer(
        model, tokenizer, method, early_stopping=EarlyStoppingSection(rows=16, **settings), **{**ADAM, **args}
    )


@pytest.mark.parametrize(("most", "said"), [(2, 2), (4, 4), (24, 12)])
def test_nothing_forgotten_is_said_when_half_is_over(
    most: int, said: int, learnt: Any, make_trainer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a few steps the first ones warm up: then it is said when all are over."""
    every = max(1, most // 4)
    trainer = stopping(make_trainer, learnt, "ga_descent", {"steps": every}, learning_rate=1e-9, max_steps=most)
    with caplog.at_level(logging.WARNING, "scopewise"):
        trainer.train()
    assert [p.step for p in trainer.early_stopping.evaluations] == list(range(0, most + 1, every))
    assert len(caplog.messages) == 1  # once, not at every look
    assert caplog.messages[0].startswith(f"step {said}: nothing is being forgotten")


def test_a_model_that_knows_nothing_is_not_said_to_forget_nothing(
    tiny: Any, make_trainer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Unlearn Success begins near 100."""
    trainer = stopping(make_trainer, tiny, "ga_descent", {"steps": 1}, learning_rate=1e-9, max_steps=2)
    with caplog.at_level(logging.WARNING, "scopewise"):
        trainer.train()
    assert trainer.early_stopping.evaluations[0].unlearn_success > 50
    assert not caplog.messages


def test_a_reset_forgets_before_the_first_step(
    learnt: Any, make_trainer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Then the steps need not: a model that guesses half of the tokens can begin below 50."""
    model, tokenizer = copy.deepcopy(learnt)
    trainer = make_trainer(
        model, tokenizer, "ga_descent+reset", early_stopping=EarlyStoppingSection(rows=16, steps=1), max_steps=2,
        learning_rate=1e-9, wrapper_args={"reset": {"alpha": 0.05}}, base_model=copy.deepcopy(learnt[0]), **ADAM,
    )  # fmt: skip
    with caplog.at_level(logging.WARNING, "scopewise"):
        trainer.train()
    assert trainer.early_stopping.evaluations[0].unlearn_success < 50
    assert not caplog.messages


def test_collapse_is_said_at_once(learnt: Any, make_trainer: Any, caplog: pytest.LogCaptureFixture) -> None:
    trainer = stopping(make_trainer, learnt, "gradient_ascent", {"steps": 2}, learning_rate=1e-2, max_steps=12)
    with caplog.at_level(logging.WARNING, "scopewise"):
        trainer.train()
    first, last = trainer.early_stopping.evaluations[0], trainer.early_stopping.evaluations[-1]
    assert first.retention_success > 60
    assert last.retention_success < 0.5 * first.retention_success
    assert any("the model collapses" in message for message in caplog.messages)
    assert not any("answer" in m and "'" in m for m in caplog.messages)  # no text of the rows


def test_the_best_state_is_kept_and_training_stops(learnt: Any, make_trainer: Any) -> None:
    """The model that comes out is the one of the best look, though training went past it."""
    trainer = stopping(
        make_trainer, learnt, "gradient_ascent", {"steps": 1, "keep_best": True, "patience": 3}, learning_rate=5e-3,
        max_steps=40,
    )  # fmt: skip
    trainer.train()
    evaluations = trainer.early_stopping.evaluations
    best = max(evaluations, key=lambda p: p.trade_off)
    assert evaluations[-1].step == best.step + 3 < 40
    assert 100 - 100 * hit_rate(forward_of(trainer.model), trainer.early_stopping.forget) == pytest.approx(
        best.unlearn_success, abs=1e-4
    )
    assert 100 * hit_rate(forward_of(trainer.model), trainer.early_stopping.retain) == pytest.approx(
        best.retention_success, abs=1e-4
    )


def test_resumed_training_remembers(learnt: Any, make_trainer: Any, tmp_path: Path) -> None:
    """Best state and evaluations of before the interruption: a resumed training ends with the same model."""
    settings = {"learning_rate": 5e-3, "max_steps": 8, "save_strategy": "steps", "save_steps": 5.0}
    every_step = {"steps": 1, "keep_best": True}
    straight = stopping(make_trainer, learnt, "gradient_ascent", every_step, output_dir=str(tmp_path / "a"), **settings)
    straight.train()
    resumed = stopping(make_trainer, learnt, "gradient_ascent", every_step, output_dir=str(tmp_path / "b"), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-5"))
    assert resumed.early_stopping.evaluations == straight.early_stopping.evaluations
    for a, b in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert float((a - b).detach().abs().max()) < 1e-6


def test_looking_changes_no_step(learnt: Any, make_trainer: Any) -> None:
    models = []
    for rows in (0, 16):
        model, tokenizer = copy.deepcopy(learnt)
        section = EarlyStoppingSection(rows=rows, steps=1)
        trainer = make_trainer(
            model, tokenizer, "ga_kl", early_stopping=section, max_steps=3, learning_rate=1e-3, **ADAM
        )
        trainer.train()
        models.append(trainer.model)
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert bool((a == b).all())


def test_stops_when_kl_is_above_its_budget(learnt: Any, make_trainer: Any, tmp_path: Path) -> None:
    """The last KL alone is above; it is that of two plain forwards, before and after. A resumed training stops again."""
    settings = {"steps": 1, "max_kl": 0.01}
    given: dict[str, Any] = {"learning_rate": 1e-3, "max_steps": 20, "save_strategy": "steps", "save_steps": 1.0}
    trainer = stopping(make_trainer, learnt, "gradient_ascent", settings, output_dir=str(tmp_path), **given)
    trainer.train()
    kl = [one.kl for one in trainer.early_stopping.evaluations]
    assert kl[0] == pytest.approx(0.0, abs=1e-6)
    assert max(kl[:-1]) <= 0.01 < kl[-1]
    assert trainer.state.global_step == len(kl) - 1 < 20
    batch = collate(trainer.early_stopping.retain)
    with torch.no_grad():
        before, after = (forward_of(model.eval()).logits(batch) for model in (learnt[0], trainer.model))
    assert kl[-1] == pytest.approx(float(token_kl(before, after).mean()), rel=1e-3)
    again = stopping(make_trainer, learnt, "gradient_ascent", settings, output_dir=str(tmp_path / "again"), **given)
    again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{len(kl) - 1}"))
    assert again.state.global_step == len(kl) - 1
