"""Base of methods whose loss is the `compute_loss` of a trainer class written for OpenUnlearning."""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import Trainer, TrainingArguments

from scopewise.data.batch import Batch
from scopewise.errors import ConfigError
from scopewise.methods.base import BatchLoss, Method
from scopewise.models.engine import Engine

_NOT_RUN = (
    "train", "training_step", "get_train_dataloader", "create_optimizer", "create_scheduler",
    "create_optimizer_and_scheduler",
)  # fmt: skip
"""What a trainer class may not override, because only its `compute_loss` is called."""


@dataclass(frozen=True, kw_only=True)
class OpenUnlearning(Method):
    """Base of methods whose loss is the `compute_loss` of a trainer class written for OpenUnlearning.

    A subclass names the trainer class in `trainer`; each field that it adds is an argument of that class's constructor.

    The loss of a step is the mean of `compute_loss` over its micro-batches, weighted by their forget rows. So it depends on
    the size of the micro-batches if `compute_loss` is a mean over tokens. Rows are not packed. A reference is what the class
    makes of the model, usually a second copy of it.

    Source: the interface of locuslab/open-unlearning d3d7cf9 `trainer/unlearn/grad_diff.py`.

    Attributes:
        retain: Stays `ce`: each forget row is paired with a retain row. The class decides on the loss.
        retain_weight: Stays 0; a weight of the retain loss is a field of the subclass, such as `alpha`.
    """

    retain: str = "ce"
    retain_weight: float = 0.0

    whole_batch: ClassVar[bool] = True
    trainer: ClassVar[type[Any] | None] = None
    """The trainer class."""

    def __post_init__(self) -> None:
        if self.retain != "ce" or self.retain_weight != 0:
            raise ValueError(
                f"retain, retain_weight: {self.retain!r}, {self.retain_weight}; {_name(self.trainer)} computes the retain "
                "loss; leave them out, and set its own arguments"
            )
        if not (isinstance(self.trainer, type) and issubclass(self.trainer, Trainer)):
            raise ValueError(
                f"trainer: {self.trainer!r}; must be a subclass of transformers.Trainer; set it in the class"
            )
        for name in _NOT_RUN:
            if getattr(self.trainer, name) is not getattr(Trainer, name):
                raise ValueError(
                    f"trainer: {_name(self.trainer)} overrides {name}, but only its compute_loss is called; move what it "
                    "does into compute_loss, or write the method for scopewise"
                )

    def batch_loss(self, engine: Engine, args: TrainingArguments) -> BatchLoss:
        """Return the loss of a micro-batch. Raises ConfigError if the class cannot be made, or adds callbacks."""
        base = {field.name for field in fields(OpenUnlearning)}
        arguments = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in base}
        assert self.trainer is not None
        try:
            theirs = self.trainer(
                **arguments, model=engine.model, args=copy.copy(args), processing_class=engine.tokenizer
            )
            callbacks = theirs.callback_handler.callbacks
        except Exception as error:  # its own code may fail in any way
            raise ConfigError(
                f"unlearn.method: {_name(self.trainer)} cannot be made with {', '.join(arguments) or 'no arguments'} "
                f"({type(error).__name__}: {error}); correct the fields of the method, or the class"
            ) from error
        for callback in callbacks:
            if not type(callback).__module__.startswith("transformers."):
                raise ConfigError(
                    f"unlearn.method: {_name(self.trainer)} adds the callback {type(callback).__name__}, but only its "
                    "compute_loss is called; move what it does into compute_loss, or write the method for scopewise"
                )
        return partial(_loss, theirs)


def _loss(theirs: Any, model: nn.Module, forget: Batch, retain: Batch) -> Tensor:
    try:
        loss = theirs.compute_loss(model, {"forget": _inputs(forget), "retain": _inputs(retain)})
    except KeyError as error:
        raise ConfigError(
            f"unlearn.method: {_name(type(theirs))}.compute_loss reads the key {error}; there are only forget and retain, "
            "each with input_ids, attention_mask and labels; write the method for scopewise"
        ) from error
    if not (isinstance(loss, Tensor) and loss.dim() == 0):
        raise ConfigError(
            f"unlearn.method: {_name(type(theirs))}.compute_loss returns no scalar tensor; return the mean of the batch"
        )
    return loss


def _inputs(batch: Batch) -> dict[str, Tensor]:
    """Return whole rows with labels ([batch, seq + 1], -100 outside of answers), as `transformers` takes them.

    Our batches leave out the last token of an answer, which predicts nothing.
    """
    ids, mask = pad(batch["input_ids"], (0, 1)), pad(batch["attention_mask"], (0, 1))
    labels = ids.new_full(ids.shape, -100)
    width = batch["input_ids"].shape[1]
    at = batch["row"] * (width + 1) + batch["position"] % width + 1
    for tensor, value in ((ids, batch["label"]), (mask, mask.new_ones(len(at))), (labels, batch["label"])):
        tensor.view(-1)[at] = value
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def _name(cls: Any) -> str:
    return getattr(cls, "__qualname__", str(cls))
