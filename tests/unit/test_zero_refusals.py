"""What is refused under DeepSpeed; nothing of it needs DeepSpeed. Runs with it are in `golden/test_zero.py`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType

from scopewise.errors import ConfigError
from scopewise.methods.base import make_method
from scopewise.training.refusals import check_deepspeed, check_model


@pytest.fixture
def deepspeed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state of a process that `accelerate launch` has started with DeepSpeed."""
    monkeypatch.setitem(PartialState(cpu=True).__dict__, "distributed_type", DistributedType.DEEPSPEED)


@pytest.mark.parametrize(
    ("method", "values", "sentence"),
    [
        ("blade", {}, r"unlearn\.method_args\.inner_steps: 3, under DeepSpeed, .*; set 0"),
        ("memflex", {"optimizer": "sgd"}, r"unlearn\.optim: sgd, under DeepSpeed, "),
        ("rmu", {"weight_decay": 0.1}, r"unlearn\.weight_decay: 0\.1, under DeepSpeed, "),
        ("memflex", {"keep_best": True}, r"unlearn\.early_stopping\.keep_best: true, under DeepSpeed, "),
    ],
)
@pytest.mark.usefixtures("deepspeed")
def test_settings(method: str, values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        check_deepspeed(make_method(method), **{"optimizer": "adamw_torch_fused", "weight_decay": 0.0, **values})


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ((True, False, False), r"model\.quantization: under DeepSpeed, .*; set none"),
        ((False, True, False), "bf16: true, under DeepSpeed, .* is float32"),
        ((False, False, True), r"unlearn\.weight_decay: above 0, .*, under DeepSpeed"),
    ],
)
@pytest.mark.usefixtures("deepspeed")
def test_models(given: tuple[bool, bool, bool], sentence: str, tiny: Any) -> None:
    with pytest.raises(ConfigError, match=sentence):
        check_model(tiny[0].requires_grad_(False), *given)


@pytest.mark.usefixtures("deepspeed")
def test_what_is_not_refused(tiny: Any) -> None:
    """What is trained may be of another dtype than the rest: DeepSpeed makes its own float32 copy of it."""
    check_deepspeed(make_method("blade", inner_steps=0), "adamw_torch", 0.0)
    check_deepspeed(make_method("memflex"), "adamw_torch_fused", 0.1)
    model = tiny[0].to(torch.bfloat16).requires_grad_(False)
    next(model.parameters()).data = next(model.parameters()).data.float()
    next(model.parameters()).requires_grad_(True)
    check_model(model, quantized=False, in_bf16=True, decayed_in_part=False)


def test_without_deepspeed_nothing_is_refused(tiny: Any) -> None:
    check_deepspeed(make_method("blade"), "sgd", 0.1, keep_best=True)
    check_model(tiny[0].requires_grad_(False), quantized=True, in_bf16=True, decayed_in_part=True)


def test_terms_one_after_the_other_are_one_step(tiny: Any, make_trainer: Any) -> None:
    """DeepSpeed steps in each backward that is said to be the last: of two terms only the second is."""
    trainer = make_trainer(tiny[0], tiny[1], "ga_descent")
    trainer.mask.splits_terms = True
    batches, _ = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, torch.device("cpu"))
    last: list[bool] = []
    backward = trainer.accelerator.backward

    def noting(loss: torch.Tensor, **kwargs: Any) -> None:
        last.append(trainer.accelerator.sync_gradients)
        backward(loss, **kwargs)

    trainer.accelerator.backward = noting
    trainer.optimizer = trainer.create_optimizer()
    for boundary in (True, False):
        trainer.accelerator.gradient_state._set_sync_gradients(boundary)
        trainer.training_step(trainer.model, batches[0])
        assert trainer.accelerator.sync_gradients == boundary
    assert last == [False, True, False, False]
