"""The plan for a request: nothing, exact retraining, or an approximate method. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from scopewise import schemas
from scopewise.bars import duration
from scopewise.config import FinetuneSection
from scopewise.documents import read_json
from scopewise.errors import ConfigError, ModelError
from scopewise.models.find import find_model
from scopewise.recipes import RECIPES
from scopewise.registry import split_method
from scopewise.terminal import counted

Kind = Literal["nothing", "exact", "approximate"]
APPROXIMATE = "wga"
"""The approximate method without a base: of the published losses one of the nearest to the oracle (docs/attack-study.md)."""
ARGUMENTS: Mapping[str, Any] = {"beta": 0.25, "retain_data": "both"}
"""Its settings in a request, ours, by trials on a real model (docs/howto/pre-trained.md): it stays near the model as it was on
general text, too, and goes on where the true answer is no longer likely, but still likelier than others."""
RECIPE = "reset_robust"
"""The approximate method with base and retain rows: of our recipes the one that resists relearning best."""
_SIZES = ((3e7, 1e-3), (3e8, 3e-4), (2e9, 1e-4), (math.inf, 2e-5))
"""Largest number of parameters, and a learning rate at which all parameters of such a model are fine-tuned."""
_LORA_RATE = 10
"""The learning rate of LoRA, as a multiple."""
_SLOWER: Mapping[str, float] = {"all": 5, "lora": 1}
"""By how much an unlearning that trains these begins slower than a fine-tuning. Ours."""
_LEAST_STEPS, _LEAST_EPOCHS = 120, 4.0
_MOST_UNDONE = 0.99
"""Share of the fine-tuning beyond which nothing worth undoing is left. Ours."""


@dataclass(frozen=True)
class Taught:
    """What a model's own files say about how it was fine-tuned.

    Attributes:
        base: The model before fine-tuning; None if unknown.
        settings: Settings of the `finetune` section; empty if unknown.
        lora: Settings of the `lora` section.
        blank: Whether the base was never trained: the tiny model that a run made.
    """

    base: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    lora: Mapping[str, Any] = field(default_factory=dict)
    blank: bool = False


def taught(model: str) -> Taught:
    """Read how a model was fine-tuned, from scopewise's `stage.json` or PEFT's `adapter_config.json` beside its weights."""
    folder = Path(model)
    if (folder / "stage.json").exists():
        inputs = schemas.read(folder / "stage.json", schemas.StageDocument)["inputs"]
        if "finetune" in inputs:
            path = inputs["model"]["path"]
            base = str(folder.parent / "base") if path == "tiny" else path
            found = base if path != "tiny" or Path(base).is_dir() else None
            return Taught(found, inputs["finetune"], inputs.get("lora", {}), blank=path == "tiny")
    if (folder / "adapter_config.json").exists():
        config = read_json(folder / "adapter_config.json", ModelError)
        lora = {key: config[key] for key in ("r", "lora_alpha", "target_modules") if config.get(key)}
        return Taught(config.get("base_model_name_or_path"), {"parameters": "lora"}, lora)
    return Taught()


def check_models(
    model: str | None, base: str | None, revision: str | None = None, names: tuple[str, str] = ("--model", "--base")
) -> None:
    """Check that the model and its base are there: given, or named by the model's own files.

    Args:
        model: Folder or hub name; None: a tiny model is made.
        base: The same of the base; None: what the model's files say.
        revision: Hub revision of the base; of the model if there is no base.
        names: What gave the model and the base, for the sentence.

    Raises:
        ModelError: one is not there.
        ConfigError: a base without a model.
    """
    if model is None:
        if base is not None:
            raise ConfigError(
                f"{names[1]}: {base}; there is no model, so that one is made, from a base of its own; give --model, too"
            )
        return
    named = base or taught(model).base
    find_model(model, None if named else revision, names[0])
    if named is not None:
        find_model(named, revision, names[1] if base else f"--base (as {model} names it)")


@dataclass(frozen=True)
class Plan:
    """What will be done.

    Attributes:
        kind: `nothing`, `exact` or `approximate`.
        method: `retrain`, a method, or empty for nothing.
        why: One sentence.
        seconds: How long all that follows will take, about; None if that is not known.
    """

    kind: Kind
    method: str
    why: str
    seconds: float | None = None

    @property
    def said(self) -> str:
        """What the terminal says."""
        if self.seconds is None:
            return self.why
        return f"{self.why} This takes {'about ' if self.seconds >= 30 else ''}{duration(self.seconds)}."


def plan(
    *,
    known: bool,
    base: str | None,
    retain: int,
    asked: Literal["exact", "approximate"] | None,
    method: str | None = None,
) -> Plan:
    """Choose: exact retraining where base and retain rows are there, since no approximate method is as good.

    Args:
        known: Whether the model knows anything of what is to be forgotten.
        base: The model before fine-tuning, if known.
        retain: Number of retain rows that the user gave.
        asked: What the user asked for.
        method: The approximate method; None chooses.

    Raises:
        ConfigError: exact retraining was asked for without a base or without retain rows.
    """
    if not known:
        return Plan("nothing", "", "The model does not show that it knows these facts, so there is nothing to unlearn.")
    if asked == "exact":
        check_exact(base, retain)
    if base is not None and retain and asked != "approximate":
        return Plan(
            "exact", "retrain",
            f"The base is fine-tuned again on {counted(retain, 'retain row')} and nothing else. What other rows taught the "
            "model is lost.",
        )  # fmt: skip
    method = method or approximate(base, retain)
    if base is not None and retain:
        why = f"As asked: approximate unlearning ({method}), although exact retraining is possible."
        return Plan("approximate", method, why)
    missing = "no base" if base is None else "no retain rows"
    why = f"Exact retraining is not possible ({missing}): approximate unlearning ({method})."
    return Plan("approximate", method, why)


def check_exact(base: str | None, retain: int) -> None:
    """Raise ConfigError if there is no base, or no retain row, without which nothing can be retrained."""
    if base is None:
        raise ConfigError("--exact: no base; retraining begins at the model before fine-tuning; give it with --base")
    if not retain:
        raise ConfigError(
            "--exact: no retain row; retraining needs the other rows of the fine-tuning; add them with scope 'retain'"
        )


def approximate(base: str | None, retain: int) -> str:
    """Return the approximate method for what is there."""
    return RECIPE if base is not None and retain else APPROXIMATE


def finetuning(found: Taught, parameters: int, what: Literal["all", "lora"] | None = None) -> dict[str, Any]:
    """Return settings of the `finetune` section: as recorded, or else by the model's size.

    Args:
        found: What the model's files say.
        parameters: Number of the model's parameters.
        what: What to train, if it is asked for; a recorded learning rate for something else does not count then.
    """
    recorded = found.settings.get("parameters", "all")
    what = what or recorded
    if "learning_rate" in found.settings and what == recorded:
        return dict(found.settings)
    return {
        "parameters": what,
        "learning_rate": learning_rate(parameters, what),
        "num_train_epochs": 10.0,
        "batch_size": 16,
        "warmup_steps": 0.05,
    }


def unlearning(
    method: str, finetune: Mapping[str, Any], forget: int, retain: int, batch_size: int = 16
) -> dict[str, Any]:
    """Return settings of the `unlearn` section to begin with.

    A recipe has its own, with as many steps as it had in the study for each of a retraining's: so it costs less than that, and
    learns the retain rows again, however many rows have to go. Else they are the fine-tuning's learning rate with LoRA, a fifth
    of it with all parameters, and at least 120 steps.

    Args:
        method: Of the plan: a method or a recipe.
        finetune: From `finetuning`.
        forget: Number of forget rows.
        retain: Number of retain rows.
        batch_size: Rows per step of both scopes, if it is not a recipe.
    """
    if (recipe := RECIPES.get(method)) is not None:
        section = FinetuneSection.model_validate(finetune)
        rows = section.batch_size * section.gradient_accumulation_steps
        steps = (
            recipe.price * section.num_train_epochs * math.ceil(retain / rows)
        )  # a step has as many rows of each scope
        return recipe.settings(section) | {"num_train_epochs": max(_LEAST_EPOCHS, steps / math.ceil(2 * forget / rows))}
    return {
        "method": method,
        "parameters": finetune["parameters"],
        "learning_rate": finetune["learning_rate"] / _SLOWER[finetune["parameters"]],
        "num_train_epochs": max(_LEAST_EPOCHS, _LEAST_STEPS / math.ceil(2 * forget / batch_size)),
        "batch_size": batch_size,
        **({"method_args": dict(ARGUMENTS)} if split_method(method)[0] == APPROXIMATE else {}),
    }


def searched(method: str) -> str:
    """Return what the search varies: a retraining's epochs, the forget weight of a recipe, or a method's learning rate."""
    if method == "retrain":
        return "num_train_epochs"
    return "forget_weight" if method in RECIPES else "learning_rate"


def with_strength(settings: Mapping[str, Any], name: str, value: float) -> dict[str, Any]:
    """Return the settings with another value of what is searched."""
    if name == "forget_weight":
        return {**settings, "method_args": {**settings["method_args"], name: value}}
    return {**settings, name: value}


def undoing_more(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the settings with a tenth of what they leave of the fine-tuning; None if the method undoes none or nearly all.

    The more is undone, the more has to be learned again, so the epochs grow by as much, and at least by a third: where hardly
    anything is left, learning begins anew.
    """
    wrappers = settings.get("wrapper_args", {})
    if "reset" not in wrappers:
        return None
    before = wrappers["reset"]["alpha"]
    if before > _MOST_UNDONE:
        return None
    alpha = 1 - (1 - before) / 10
    return {
        **settings,
        "num_train_epochs": settings["num_train_epochs"] * max(alpha / before, 4 / 3),
        "wrapper_args": {**wrappers, "reset": {**wrappers["reset"], "alpha": alpha}},
    }


def strengths(settings: Mapping[str, Any], name: str) -> dict[str, float]:
    """Return what the attempts vary: what is searched, and the share of the fine-tuning that is undone."""
    found = {name: (settings.get("method_args", {}) | settings)[name]}
    reset = settings.get("wrapper_args", {}).get("reset")
    return found if reset is None else {**found, "reset": reset["alpha"]}


def learning_rate(parameters: int, what: Literal["all", "lora"]) -> float:
    """Return a usual learning rate of fine-tuning for a number of parameters."""
    rate = next(rate for most, rate in _SIZES if parameters <= most)
    return rate * _LORA_RATE if what == "lora" else rate
