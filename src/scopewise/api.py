"""The Python API in four functions: `unlearn`, `localize`, `evaluate` and `attack` a model in memory."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftConfig, PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from scopewise.attacks.base import attacked_engine
from scopewise.attacks.suite import Attacked, attack_models
from scopewise.config import AttackSection, DataSection, EvaluateSection, LocalizeSection
from scopewise.data.rows import FORGET, RETAIN, VAL, Benchmark, check_scopes
from scopewise.data.tables import as_rows
from scopewise.errors import ConfigError
from scopewise.evaluation import Evaluation
from scopewise.evaluation import evaluate as _evaluate
from scopewise.localizers.base import Scopes, check_arguments, localize_encoded
from scopewise.metrics.base import ReferenceValues
from scopewise.models.adapters import lora_config
from scopewise.models.engine import Engine
from scopewise.region import Region
from scopewise.registry import nearest
from scopewise.section import make_section
from scopewise.training.arguments import UnlearningConfig
from scopewise.training.sampler import Data
from scopewise.training.trainer import UnlearningTrainer


def unlearn(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    forget: Data,
    retain: Data | None = None,
    method: str = "memflex",
    *,
    peft_config: PeftConfig | str | None = "lora",
    region: Region | str | Path | None = None,
    **arguments: Any,
) -> PreTrainedModel | PeftModel:
    """Unlearn in one call.

    Args:
        model: A causal LM, or a `PeftModel` whose adapter is trained further.
        tokenizer: Its tokenizer.
        forget: Rows to forget: a file (JSON lines, CSV, Parquet), a `datasets.Dataset`, or dicts with `question` and `answer`.
        retain: Rows to keep, of the same instances.
        method: As in `scopewise list methods`.
        peft_config: `lora` adds the paper's adapter to a model without one; a PEFT configuration adds that adapter, and
            is refused if the model has one; None trains the model's adapter, or else all parameters.
        region: A region, a region file, or a localizer's name; None uses the method's own localizer.
        **arguments: Of `UnlearningConfig`, such as `learning_rate` or `method_args`.

    Returns:
        The unlearned model, with its adapter if there is one, ready for `save_pretrained`.

    Raises:
        ConfigError, DataError: as `UnlearningTrainer`.
    """
    for name in arguments:
        if name not in UnlearningConfig.__dataclass_fields__:
            known = UnlearningConfig.__dataclass_fields__
            raise ConfigError(f"unlearn: unknown argument {name!r}; those of UnlearningConfig.{nearest(name, known)}")
    config = lora_config() if peft_config == "lora" else peft_config
    if isinstance(model, PeftModel) and peft_config == "lora":
        config = None  # train the existing adapter
    with tempfile.TemporaryDirectory() as folder:  # nothing is saved unless `arguments` has an output folder
        trainer = UnlearningTrainer(
            model=model,
            method=method,
            args=UnlearningConfig(**{"output_dir": folder, **arguments}),
            forget_dataset=forget,
            retain_dataset=retain,
            processing_class=tokenizer,
            peft_config=config,  # type: ignore[arg-type]
            region=region,
        )
        trainer.train()
    return trainer.accelerator.unwrap_model(trainer.model).eval()


def localize(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    forget: Data,
    retain: Data,
    localizer: str = "gradient",
    *,
    seed: int = 0,
    size: Region | None = None,
    max_length: int = 256,
    prompt: str = "plain",
    kernels: Literal["auto", "off"] = "auto",
    **settings: Any,
) -> Region:
    """Find the parameters that hold the forget scope.

    Args:
        model: The model to unlearn from; the localizer looks at its LoRA matrices or, without an adapter, at its linear
            layers.
        tokenizer: Its tokenizer.
        forget: Train rows of the forget scope, as for `unlearn`.
        retain: Train rows of the retain scope.
        localizer: As in `scopewise list localizers`.
        seed: Of the random labels, or of the random region.
        size: The region whose size the `random` control takes; None makes one by gradients.
        max_length: Maximum number of tokens of a row.
        prompt: `plain`, `chat`, or a text with `{question}` in it.
        kernels: `off` disables the optional kernels.
        **settings: Of the run file's `localize` section, such as `localizer_args={"mu": 0.8}`.

    Returns:
        A region; `region.save(path)` writes a region file for `unlearn` and the command line.
    """
    rows = [as_rows(forget, FORGET), as_rows(retain, RETAIN)]
    check_scopes([*rows[0], *rows[1]])
    section = make_section(LocalizeSection, settings, "localize")
    check_arguments([localizer], section.localizer_args)
    data = make_section(DataSection, {"max_length": max_length, "prompt": prompt}, "data")
    engine = Engine(model, tokenizer, data, max_tokens=section.max_tokens, kernels=kernels)
    scopes = Scopes(engine.encode(rows[0]), engine.encode(rows[1]), seed, size)
    engine.check((*scopes.forget, *scopes.retain))
    return localize_encoded(localizer, engine, scopes, section.localizer_args)


def evaluate(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    benchmark: Benchmark | None = None,
    *,
    forget: Data | None = None,
    retain: Data | None = None,
    max_length: int = 256,
    prompt: str = "plain",
    system: str | None = None,
    system_role: Literal["system", "user"] = "system",
    reference: Evaluation | None = None,
    target: Evaluation | None = None,
    cache: str | Path | None = None,
    kernels: Literal["auto", "off"] = "auto",
    **settings: Any,
) -> Evaluation:
    """Evaluate a model on a benchmark, or on your own rows.

    Args:
        model: A causal LM, with or without adapters, unlearned by this package or not.
        tokenizer: Its tokenizer.
        benchmark: From `load_benchmark`; None uses `forget` and `retain`, as val rows if they name no split.
        forget: Rows that should be forgotten.
        retain: Rows that should be kept.
        max_length: Maximum number of tokens of a row.
        prompt: `plain`, `chat`, or a text before the answer that contains `{question}`.
        system: System message of a chat.
        system_role: `user` puts it before the question, for chat templates that take no system message.
        reference: Evaluation of a model that never saw the forget scope, for metrics that compare with one.
        target: Evaluation of the model before unlearning, for metrics that are scaled by it.
        cache: Folder that caches the model's scores and texts, so that nothing is computed twice.
        kernels: `off` disables the optional kernels.
        **settings: Of the run file's `evaluate` section, such as `metrics`, `splits`, `direct_splits`.

    Returns:
        `.metrics` is `{"unlearn_success/val": …, …}`; `.values` also has intervals and per-row values.
    """
    if benchmark is None:
        if forget is None or retain is None:
            raise ConfigError("evaluate: neither a benchmark nor rows of both scopes; give one, or forget= and retain=")
        benchmark = Benchmark(
            "rows", (*as_rows(forget, FORGET, VAL, every_split=True), *as_rows(retain, RETAIN, VAL, every_split=True))
        )
        check_scopes(benchmark.rows)
    data = make_section(
        DataSection,
        {"max_length": max_length, "prompt": prompt, "system": system, "system_role": system_role},
        "data",
    )
    compared = None
    if reference is not None or target is not None:
        compared = ReferenceValues(reference.values if reference else {}, target.values if target else {})
    section = make_section(EvaluateSection, settings, "evaluate")
    engine = Engine(model, tokenizer, data, max_tokens=section.max_tokens, kernels=kernels, name="evaluate")
    return _evaluate(engine, benchmark, section, reference=compared, cache=cache)


def attack(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    benchmark: Benchmark,
    *,
    target: PreTrainedModel | PeftModel,
    oracle: PreTrainedModel | PeftModel,
    max_length: int = 256,
    prompt: str = "plain",
    system: str | None = None,
    system_role: Literal["system", "user"] = "system",
    kernels: Literal["auto", "off"] = "auto",
    **settings: Any,
) -> dict[str, Attacked]:
    """Test whether forgotten knowledge can be recovered from an unlearned model. The models are not changed.

    Args:
        model: The unlearned model; attacks run on a copy with its adapter merged.
        tokenizer: The tokenizer of all three models.
        benchmark: From `load_benchmark`; the attacks use its forget rows.
        target: The model before unlearning.
        oracle: A model that never saw the forget scope.
        max_length: Maximum number of tokens of a row; attacks may lengthen prompts to three times that.
        prompt: `plain`, `chat`, or a text with `{question}` in it.
        system: System message of a chat.
        system_role: `user` puts it before the question, for chat templates that take no system message.
        kernels: `off` disables the optional kernels.
        **settings: Of the run file's `attack` section, such as `suite`, `attacks`, `attack_args`.

    Returns:
        Attack → its result: `.leakage` (0 = like the oracle, 1 = like the target), `.verdict`, `.worst`.
    """
    section = make_section(AttackSection, settings, "attack")
    how = {"max_length": max_length, "prompt": prompt, "system": system, "system_role": system_role}
    data = make_section(DataSection, how, "data")

    def subject(name: str, given: PreTrainedModel | PeftModel) -> Callable[[], Engine]:
        return lambda: attacked_engine(
            name, copy.deepcopy(given), tokenizer, data, max_tokens=section.max_tokens, kernels=kernels
        )

    found = attack_models(
        {"model": subject("model", model)}, subject("oracle", oracle), subject("target", target), benchmark, section
    )
    return {attacked.attack: attacked for attacked in found if attacked.model == "model"}
