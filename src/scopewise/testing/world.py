"""Inputs for testing plugins: an untrained two-layer model, its tokenizer, and a few short rows of both scopes."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from scopewise.config import LoraSection, TinyConfig
from scopewise.data.load import load_benchmark
from scopewise.data.prompt import Encoded, encode
from scopewise.data.rows import FORGET, RETAIN, TRAIN, Row
from scopewise.models.adapters import lora_config, with_adapter
from scopewise.models.engine import Engine
from scopewise.models.tiny import build_tiny, tokenizer_texts
from scopewise.region import parameter_name
from scopewise.training.arguments import UnlearningConfig
from scopewise.training.progress import quiet
from scopewise.training.trainer import UnlearningTrainer

SIZES = TinyConfig(vocab_size=300, width=32, layers=2, heads=2, context=256)
LORA = LoraSection(r=2, lora_alpha=4, lora_dropout=0.0)


class PropertyError(AssertionError):
    """A property does not hold; the text says what was found."""


class NotApplicableError(Exception):
    """A property does not apply to this class; the text says why."""


def check(holds: bool, found: str) -> None:
    """Raise PropertyError with `found` if a property does not hold."""
    if not holds:
        raise PropertyError(found)


def tiny_model() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return an untrained Llama (width 32, 2 layers, 300 tokens), in evaluation mode, and its tokenizer."""
    model, tokenizer = build_tiny(tokenizer_texts(load_benchmark("builtin").rows), SIZES, seed=0)
    with torch.no_grad():  # with weights of std 0.02 predictions are nearly uniform, and the arg-max is arbitrary
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(4)
    return model.eval(), tokenizer


def short_rows(scope: str, tokenizer: PreTrainedTokenizerBase, count: int = 8) -> list[Row]:
    """Return the shortest train rows of a scope of the built-in benchmark."""
    chosen = [r for r in load_benchmark("builtin").rows if r.scope == scope and r.split == TRAIN]
    lengths = [len(tokenizer(r.question + r.answer)["input_ids"]) for r in chosen]
    return [r for _, r in sorted(zip(lengths, chosen, strict=True), key=lambda p: p[0])[:count]]


def general_rows() -> list[Row]:
    """Return eight short pieces of general text."""
    words = ["snow", "iron", "wind", "tide", "moss", "salt", "rain", "sand"]
    return [Row("", f"There is {word} in the valley, and none of it is new.", RETAIN, origin=word) for word in words]


def small_trainer(model: Any, method: Any, data: dict[str, Any], folder: str, **given: Any) -> UnlearningTrainer:
    """Return a trainer of one step of SGD on the CPU: no clipping, no warm-up, silent.

    Args:
        model: The model to train.
        method: The method.
        data: Rows and tokenizer, as `UnlearningTrainer` takes them.
        folder: Its output folder.
        **given: Arguments of the trainer (`region`, `wrappers`, …) or of `UnlearningConfig`.
    """
    own = {
        key: given.pop(key)
        for key in ("region", "peft_config", "wrappers", "callbacks", "held_out", "base_model")
        if key in given
    }
    settings: dict[str, Any] = {
        "output_dir": folder,
        "use_cpu": True,
        "optim": "sgd",
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0.0,
        "max_grad_norm": 0.0,
        "max_steps": 1,
        "per_device_train_batch_size": 8,
        "disable_tqdm": True,
        "logging_strategy": "no",
        **given,
    }
    return UnlearningTrainer(
        model=model, method=method, args=UnlearningConfig(**settings), **data, **{"region": "all", **own}
    )


@dataclass
class World:
    """The model and the rows that properties are tested on.

    Attributes:
        source: The model; `model` gives copies.
        tokenizer: Its tokenizer.
    """

    source: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @staticmethod
    def build() -> World:
        """Make the small world."""
        return World(*tiny_model())

    def model(self, adapter: bool = False, *, trained: bool = False) -> Any:
        """Return a copy of the model, with a fresh adapter or one whose B is not zero (`trained`), without dropout."""
        model: Any = copy.deepcopy(self.source)
        if adapter:
            model = with_adapter(model, lora_config(LORA), 0)
            if trained:
                fill_adapter(model)
        return model

    def base_model(self) -> Any:
        """Return the model before fine-tuning: a copy with halved weights."""
        model: Any = copy.deepcopy(self.source)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(0.5)
        return model

    @cached_property
    def rows(self) -> dict[str, list[Row]]:
        """Eight rows of each scope."""
        return {scope: short_rows(scope, self.tokenizer) for scope in (FORGET, RETAIN)}

    @cached_property
    def items(self) -> tuple[list[Encoded], list[Encoded]]:
        """The same rows, tokenised: forget, retain."""
        return encode(self.rows[FORGET], self.tokenizer), encode(self.rows[RETAIN], self.tokenizer)

    def engine(self, model: nn.Module | None = None, **settings: Any) -> Engine:
        """Return the engine of a model, or of a copy of the small one."""
        return Engine(self.model() if model is None else model, self.tokenizer, **settings)

    def trainer(self, model: Any, method: Any, **given: Any) -> Any:
        """Return a `small_trainer` on the rows of this world; it saves nothing."""
        data = {
            "forget_dataset": self.rows[FORGET],
            "retain_dataset": self.rows[RETAIN],
            "general_dataset": general_rows(),
            "processing_class": self.tokenizer,
        }
        given = {"base_model": self.base_model(), **given}
        trainer = small_trainer(model, method, data, tempfile.gettempdir(), **given)
        quiet(trainer)
        return trainer


def fill_adapter(model: PeftModel) -> None:
    """Fill B of every LoRA layer with values. In a fresh adapter B is zero, so A would get no gradient in the first step."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(0))


def parameters_of(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of all parameters, by their plain names."""
    return {parameter_name(n): p.detach().clone() for n, p in model.named_parameters()}


def furthest(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """Return the largest difference between two sets of parameters."""
    return max(float((first[n] - second[n]).abs().max()) for n in first)


def alike(found: Sequence[float], wanted: Sequence[float], tolerance: float = 1e-5) -> bool:
    """Return whether numbers are equal up to rounding."""
    return all(abs(a - b) <= tolerance * max(1.0, abs(b)) for a, b in zip(found, wanted, strict=True))


Property = Callable[..., None]
"""Takes what is tested and a world; raises PropertyError or NotApplicableError."""
