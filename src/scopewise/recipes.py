"""Recipes: methods with settings that a study chose once and for all, relative to the fine-tuning of the target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """A method, its wrappers and its settings, under one name; a bench does not search them.

    All else is as in the fine-tuning of the target: parameters, learning rate, rows per step. So a recipe fits other models.
    It trains on all retain rows that the target was taught (`unlearn.retain_rows: taught`).

    Attributes:
        method: Method and wrappers.
        epochs: `unlearn.num_train_epochs`, as a share of `finetune.num_train_epochs`.
        price: Steps in the study, as a share of those of exact retraining.
        about: One line for lists.
        method_args: Hyper-parameters of the method.
        wrapper_args: Settings of the wrappers.
        default: Whether it is our default.
    """

    method: str
    epochs: float
    price: float
    about: str
    method_args: Mapping[str, Any] = field(default_factory=dict)
    wrapper_args: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    default: bool = False

    def settings(self, finetune: Any) -> dict[str, Any]:
        """Return the settings of the `unlearn` section that it sets.

        Args:
            finetune: The `finetune` section of the run.
        """
        return {
            "method": self.method,
            "localizer": "all",
            "parameters": finetune.parameters,
            "learning_rate": finetune.learning_rate,
            "num_train_epochs": self.epochs * finetune.num_train_epochs,
            "batch_size": finetune.batch_size,
            "gradient_accumulation_steps": finetune.gradient_accumulation_steps,
            "retain_rows": "taught",
            "method_args": dict(self.method_args),
            "wrapper_args": {name: dict(own) for name, own in self.wrapper_args.items()},
        }


# Chosen on KnowUnDo privacy with the tiny model, seed 1, a fifth of the forget train rows held out (docs/attack-study.md).
RECIPES: dict[str, Recipe] = {
    "reset_fast": Recipe(
        method="ihl+reset",
        epochs=1 / 3,
        price=0.46,
        about="Undo a third of the fine-tuning, then train with ihl; about half of the price of retraining.",
        method_args={"forget_weight": 0.2},
        wrapper_args={"reset": {"alpha": 0.35}},
    ),
    "reset_robust": Recipe(
        method="ihl+reset",
        epochs=1 / 2,
        price=0.69,
        about="Undo 70 % of the fine-tuning, then train with ihl; about 70 % of the price of retraining.",
        method_args={"forget_weight": 0.065},
        wrapper_args={"reset": {"alpha": 0.7}},
        default=True,
    ),
}
"""Name → recipe."""
