"""A run that was cut short and resumed is the run that went straight through; checkpointing changes no gradient."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from scopewise.config import EarlyStoppingSection, LoraSection
from scopewise.models.adapters import lora_config, with_adapter
from scopewise.region import parameter_name

DROPOUT = lora_config(LoraSection(r=2, lora_alpha=4, lora_dropout=0.2))
NONE = lora_config(LoraSection(r=2, lora_alpha=4, lora_dropout=0.0))


def adapter_of(model: Any) -> dict[str, torch.Tensor]:
    return {parameter_name(n): p.detach().clone() for n, p in model.named_parameters() if "lora_" in n}


@pytest.mark.parametrize("start", ["fresh", "continued"])
@pytest.mark.parametrize(
    ("method", "region"),
    [
        ("memflex", "gradient"),
        ("ga_kl", "all"),
        ("random_labels", "all"),
        ("grail", "grail"),
        ("alt_po", "all"),
        ("rmu", "all"),
        ("pdu", "all"),
        ("blade", "all"),
        ("task_vector", "all"),
    ],
)
def test_resumed_is_straight_through(
    method: str, region: str, start: str, tiny: Any, make_trainer: Any, tmp_path: Path
) -> None:
    """Four steps (two epochs of two) with dropout and AdamW; a checkpoint after the third, in the second epoch."""
    model, tokenizer = tiny
    model = with_adapter(model, DROPOUT, 0)
    if start == "continued":
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(0))

    curves = []

    def run(out: str, resume: str | None = None) -> dict[str, torch.Tensor]:
        trainer = make_trainer(
            copy.deepcopy(model),
            tokenizer,
            method,
            region=region,
            output_dir=str(tmp_path / out),
            optim="adamw_torch",
            learning_rate=1e-2,
            lr_scheduler_type="cosine",
            max_steps=4,
            per_device_train_batch_size=8,
            save_strategy="steps",
            save_steps=3.0,
            max_grad_norm=1.0,
            logging_strategy="steps",
            logging_steps=2.0,  # the checkpoint stands between two logs
        )
        trainer.train(resume_from_checkpoint=resume)
        assert trainer.state.global_step == 4
        curves.append([entry for entry in trainer.state.log_history if "loss" in entry])
        return adapter_of(trainer.model)

    straight = run("a")
    resumed = run("b", str(tmp_path / "a" / "checkpoint-3"))
    assert straight.keys() == resumed.keys()
    begin = adapter_of(model)
    same_shape = [n for n in straight if straight[n].shape == begin[n].shape]  # a task vector may double the rank
    assert max((float((straight[n] - begin[n]).abs().max()) for n in same_shape), default=1.0) > 1e-3
    assert max(float((straight[n] - resumed[n]).abs().max()) for n in straight) < 1e-6
    assert [entry["step"] for entry in curves[0]] == [2, 4]
    assert curves[1] == curves[0]  # to the last digit: loss, gradient norm, learning rate


@pytest.mark.parametrize("patience", [0, 1])
def test_resumed_after_the_last_step_it_takes_no_other(
    patience: int, tiny: Any, make_trainer: Any, tmp_path: Path
) -> None:
    """Three steps are one and a half epochs; early stopping without patience for a step of rate 0 stops after the first."""
    model, tokenizer = tiny
    model = with_adapter(model, NONE, 0)

    def run(out: str, resume: str | None = None) -> Any:
        trainer = make_trainer(
            copy.deepcopy(model), tokenizer, "ga_descent", output_dir=str(tmp_path / out), max_steps=3,
            learning_rate=0.0 if patience else 0.1, save_strategy="steps", save_steps=1.0,
            early_stopping=EarlyStoppingSection(rows=4, steps=1, patience=patience),
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    straight = run("a")
    last = straight.state.global_step
    assert last == (1 if patience else 3)
    resumed = run("b", str(tmp_path / "a" / f"checkpoint-{last}"))
    assert resumed.state.global_step == last
    assert resumed.early_stopping.evaluations == straight.early_stopping.evaluations
    wanted = adapter_of(straight.model)
    assert all(torch.equal(value, wanted[name]) for name, value in adapter_of(resumed.model).items())


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("method", ["gradient_ascent", "ga_kl"])
def test_gradient_checkpointing_changes_no_gradient(method: str, tiny: Any, make_trainer: Any) -> None:
    """One SGD step from a fresh adapter: B must move, and as without checkpointing."""
    model, tokenizer = tiny
    after = []
    for checkpointing in (False, True):
        trainer = make_trainer(
            copy.deepcopy(model),
            tokenizer,
            method,
            peft_config=NONE,
            learning_rate=1.0,
            gradient_checkpointing=checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False} if checkpointing else None,
        )
        trainer.train()
        after.append(adapter_of(trainer.model))
    for name, value in after[0].items():
        if "lora_B" in name:
            assert bool(value.any())
        assert float((value - after[1][name]).abs().max()) < 1e-6
