"""Check a run before training: the same checks for `scopewise check` and for the run itself.

They read configs, tokenizers and the headers of weight files, but no weights. The model is built on the meta device to
check that the weight files fit it, and that LoRA, a localizer and a region find their modules. Each command runs the
checks that it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import AutoConfig, PreTrainedTokenizerBase

from scopewise.ability.tasks import load_tasks
from scopewise.attacks.oracle import check_kind
from scopewise.attacks.suite import check_attacks
from scopewise.config import LoraSection, ModelSection, RunConfig, TrainingSection, UnlearnSection, split_entry
from scopewise.data.load import check_splits, load_benchmark
from scopewise.data.paraphrases import paraphrased
from scopewise.data.prompt import Encoded, Prompt, direct_prompt, dropped_rows, encode, warn_of_dropped
from scopewise.data.rows import FORGET, SCOPES, TRAIN, Benchmark, Row, each_row
from scopewise.errors import ConfigError, DataError
from scopewise.localizers.base import localizer_of
from scopewise.methods.base import Method, make_method
from scopewise.methods.cross_entropy import Retrain
from scopewise.methods.wrappers.base import make_wrappers
from scopewise.metrics.base import make_metrics
from scopewise.metrics.needs.base import need_class
from scopewise.models.adapters import lora_config, with_adapter
from scopewise.models.checked import check_weights
from scopewise.models.find import find_model, is_folder
from scopewise.models.gguf import unpacked
from scopewise.models.load import adapter_base, load_tokenizer, quantized
from scopewise.models.outline import base_outline, check_lora, check_memory, outline
from scopewise.models.tiny import build_tokenizer, tiny_shape, tokenizer_texts
from scopewise.models.vocabulary import check_vocabulary
from scopewise.region import Region
from scopewise.registry import EXACT, split_method
from scopewise.training.loss import check_whole_batch
from scopewise.training.mask import RegionMask
from scopewise.training.refusals import check_deepspeed, check_optimizer, check_wrappers


@dataclass(frozen=True)
class Checked:
    """A run file whose data and model were checked.

    Attributes:
        config: The run file, with the benchmark's own settings.
        benchmark: Its rows.
        tokenizer: The tokenizer of the rows; None if they were not tokenised.
        items: The tokenised rows for training and evaluation, without those that are too long.
        dropped: The rows that are too long.
    """

    config: RunConfig
    benchmark: Benchmark
    tokenizer: PreTrainedTokenizerBase | None
    items: Sequence[Encoded]
    dropped: Sequence[Row]


def check_run(config: RunConfig, *, length: bool = True) -> Checked:
    """Run the checks of every command with a run file: data, models, settings of fine-tuning and evaluation.

    Args:
        config: The run file, with the benchmark's own settings (`with_suite`).
        length: Tokenise the rows.

    Raises:
        UserError: the first error found.
    """
    data, model, evaluate = config.data, config.model, config.evaluate
    _check_training(config, config.finetune, "finetune")
    check_deepspeed(Retrain(), config.finetune.optim, float(config.finetune.weight_decay))
    benchmark = load_benchmark(data.benchmark, data.path, data.domain, data.general, data.instances)
    check_splits(benchmark, evaluate)
    for row in benchmark.rows if evaluate.metrics else ():
        if row.split in evaluate.direct_splits and row.question:
            direct_prompt(row)
    for setting, path in (("model.path", model.path), ("model.target", model.target), ("model.oracle", model.oracle)):
        if path is not None and path != "tiny":
            _check_files(path, model.revision if path == model.path else None, setting)
    needs = frozenset().union(*(metric.needs for metric in make_metrics(evaluate)))
    for key in sorted(needs):  # the needs of models have the names of the settings that give the models
        need_class(key)
        if (judge := getattr(evaluate, key, None)) is not None:
            _check_files(judge, None, f"evaluate.{key}")
    if evaluate.ability.tasks:
        load_tasks(evaluate.ability)
    outlined = _check_models(config)
    check_attacks(config.attack)
    if not length:
        return Checked(config, benchmark, None, (), ())
    tokenizer = _tokenizer(config, benchmark)
    measured = (*evaluate.splits, *evaluate.direct_splits)
    rows = [
        row
        for row in benchmark.rows
        if row.split in measured or (row.scope in SCOPES and row.split in (TRAIN, *benchmark.taught))
    ]
    items = encode(rows, tokenizer, Prompt.of(data), data.max_length, over_length=data.over_length)
    if outlined is not None:
        check_vocabulary(outlined, tokenizer, items)
    dropped = dropped_rows(rows, items)
    warn_of_dropped(dropped, len(rows))
    for scope in SCOPES:
        if not any(item.row.scope == scope and item.row.split == TRAIN for item in items):
            raise DataError(
                f"data.max_length: {data.max_length} tokens; no {TRAIN} row of scope {scope!r} fits; set more"
            )
    return Checked(config, benchmark, tokenizer, items, dropped)


def check_unlearning(checked: Checked, section: UnlearnSection, where: str = "unlearn") -> Method:
    """Check the settings of one unlearning, and return its method.

    Args:
        checked: The run.
        section: Its settings.
        where: Name of the section in messages.

    Raises:
        UserError: the first error found.
    """
    config, benchmark = checked.config, checked.benchmark
    method = make_method(section.method, **section.method_args)
    if split_method(section.method)[0] in EXACT:
        _check_exact(checked, section, where)
        return method
    _check_training(config, section, where)
    _check_adapter(config, section, where)
    check_deepspeed(method, section.optim, float(section.weight_decay), section.early_stopping.keep_best)
    others = [split_entry(entry)[0] for entry in config.bench.methods]
    wrappers = make_wrappers(section.method, section.wrapper_args, others=others)
    for wrapper in wrappers:
        check_wrappers(wrapper.name)
        wrapper.check(method)
    rows = section.batch_size * section.gradient_accumulation_steps
    if method.retain_terms and rows % 2:
        raise ConfigError(
            f"{where}.batch_size: {rows} rows per step; {section.method} pairs forget with retain rows, so it must be even; "
            "change batch_size"
        )
    anchors = section.expand.retain > 0 or method.retain_data == "both"
    check_whole_batch(method, rows=section.batch_size, wrapped=bool(wrappers), anchors=anchors)
    forget = benchmark.select(FORGET, TRAIN)
    if section.expand.paraphrases:
        known = [row.question for row in benchmark.rows if row.split != TRAIN or row.scope != FORGET]
        paraphrased(forget, known, section.expand.paraphrases)
    if method.answers_from == "row":

        def has_alternative(origin: str, row: Row) -> None:
            if not row.alternative:
                raise DataError(
                    f"{origin}: no 'alternative', which {section.method} reads; add one to each forget row, or set "
                    f"{where}.method_args.alternative to 'refusal' or 'generated'"
                )

        each_row(((row.origin, row) for row in forget), has_alternative)
    if checked.tokenizer is not None and method.retain_data != "retain" and method.retain_terms:
        data = config.data
        encode(benchmark.general, checked.tokenizer, Prompt.of(data), data.max_length, over_length=data.over_length)
    if config.model.target is None:
        check_finetuning(checked)
    source = config.model.target or config.model.path
    model = _check_trained(config, source, section.parameters, section.adapter)
    for wrapper in wrappers if model is not None else ():
        wrapper.check_model(model)
    if section.region is None:
        check_localizing(checked, section.localizer or method.localizer)
    elif model is not None:
        RegionMask(model, Region.load(section.region))
    return method


def _check_exact(checked: Checked, section: UnlearnSection, where: str) -> None:
    """Raise a UserError if a method that fine-tunes the base cannot, or is given what only unlearning has."""
    name, wrappers = split_method(section.method)
    given = {
        "method": wrappers,
        "method_args": section.method_args,
        "localizer": section.localizer not in (None, "all"),
        "region": section.region,
    }
    for setting, value in given.items():
        if value:
            raise ConfigError(
                f"{where}.{setting}: given for {name}, which fine-tunes the base with the settings of 'finetune', without "
                "wrapper, method_args, localizer or region; leave it out"
            )
    check_retraining(checked)


def check_finetuning(checked: Checked) -> None:
    """Raise a UserError if the base cannot be fine-tuned into the target or the oracle."""
    config = checked.config
    _check_trained(config, config.model.path, config.finetune.parameters)


def check_localizing(checked: Checked, localizer: str) -> None:
    """Raise a UserError if a localizer, or the one that gives its size, finds nothing to choose from in the model."""
    config = checked.config
    section = config.unlearn
    model = _check_trained(config, config.model.target or config.model.path, section.parameters, section.adapter)
    made = localizer_of(localizer, config.localize.localizer_args)
    if model is not None:
        made.check(model)
    if made.takes_size_of is not None:
        check_localizing(checked, made.takes_size_of)


def _check_models(config: RunConfig) -> Any:
    """Check that the models are complete and fit into memory; return the target, or else the base, without weights."""
    section, found = config.model, None
    local = config.bench.engine == "local"  # otherwise it runs on other machines, with other memory and accelerators
    if local:
        quantized(section.quantization)
    judge = config.evaluate.reference_model if "mia_reference" in config.evaluate.metrics else None
    for source in dict.fromkeys((judge, section.path if section.target is None else section.target)):
        if source is not None:
            found = outline(source, section)
            if found is not None and local:
                check_memory(found, source, section.quantization)
    return found


def _check_files(path: str, revision: str | None, setting: str) -> None:
    """Check that a model exists and, in a local folder, that its files are complete; likewise an adapter's base."""
    find_model(path, revision, setting)
    folder = unpacked(path, setting)
    if is_folder(folder, setting):
        check_weights(Path(folder), setting)
    if (base := adapter_base(path, revision)) is not None:
        _check_files(base, None, setting)


def _check_training(config: RunConfig, section: TrainingSection, where: str) -> None:
    check_optimizer(section.optim, where)
    if config.model.quantization != "none" and section.parameters == "all":
        raise ConfigError(
            f"{where}.parameters: all, on a base with model.quantization={config.model.quantization}; 4-bit weights "
            "cannot be trained; set lora, or model.quantization=none"
        )


def _check_adapter(config: RunConfig, section: UnlearnSection, where: str) -> None:
    """Raise ConfigError if a fresh adapter is set but no adapter is trained, or the old one cannot be merged exactly."""
    if section.adapter == "continue":
        return
    if section.parameters == "all":
        raise ConfigError(
            f"{where}.adapter: fresh, with {where}.parameters=all, which trains no adapter; set parameters=lora, or "
            "leave adapter out"
        )
    if config.model.quantization != "none":
        raise ConfigError(
            f"{where}.adapter: fresh, on a base with model.quantization={config.model.quantization}; merging into 4-bit "
            "weights rounds them; set continue, or model.quantization=none"
        )


def check_oracle(checked: Checked) -> None:
    """Raise a UserError if the oracle, or its base, has another architecture or tokenizer than the target."""
    model = checked.config.model
    if model.oracle is not None:
        _check_kind(checked, (model.oracle, None))
    elif model.target is not None:
        if model.path == "tiny":
            raise ConfigError(
                "model.path: 'tiny', while model.target is another model; the oracle must start from the same base as "
                "the target; set model.path to that base, model.oracle to an oracle, or bench.oracle=false for no "
                "oracle"
            )
        _check_kind(checked, (model.path, model.revision))


def check_retraining(checked: Checked) -> None:
    """Raise a UserError if the base cannot be fine-tuned into what the target would be without the forget rows."""
    model = checked.config.model
    if model.target is not None:
        if model.path == "tiny":
            raise ConfigError(
                "model.path: 'tiny', while model.target is another model; retraining must start from the same base as "
                "the target; set model.path to that base"
            )
        _check_kind(checked, (model.path, model.revision))
    check_finetuning(checked)


def _check_kind(checked: Checked, oracle: tuple[str, str | None]) -> None:
    """Raise a UserError if a model (name and revision) has another architecture or tokenizer than the target."""
    model = checked.config.model
    target = (model.path, model.revision) if model.target is None else (model.target, None)
    if target[0] == "tiny":
        shapes = _shape(*oracle), tiny_shape(model.tiny, model.tiny.vocab_size)
        tokenizer = _tokenizer(checked.config, checked.benchmark)
    else:
        shapes = _shape(*oracle), _shape(*target)
        tokenizer = load_tokenizer(*target)
    if None not in shapes:
        check_kind(*shapes, load_tokenizer(*oracle), tokenizer)


def _shape(path: str, revision: str | None) -> Any:
    """Return the configuration of a model or of an adapter's base; None on errors, which the loader will report."""
    base = adapter_base(path, revision)
    if base is not None:
        return _shape(base, None)
    path = str(unpacked(path))
    try:
        return AutoConfig.from_pretrained(path, revision=revision or "main", local_files_only=Path(path).is_dir())
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _tokenizer(config: RunConfig, benchmark: Benchmark) -> PreTrainedTokenizerBase:
    """Return the tokenizer of the target, or else of the base; the one of `tiny` is trained on the rows."""
    model = config.model
    if model.target is not None:
        return load_tokenizer(model.target)
    if model.path != "tiny":
        return load_tokenizer(model.path, model.revision)
    return build_tokenizer(tokenizer_texts(benchmark.rows), model.tiny.vocab_size)


@lru_cache(maxsize=4)  # a benchmark calls it for each method
def _architecture(section: ModelSection, source: str, lora: LoraSection | None, fresh: bool = False) -> Any:
    """Return the model as it is before training, without weights; None for an adapter on the hub.

    Args:
        section: Settings for loading it.
        source: `tiny`, a folder or a hub name.
        lora: Settings of the adapter to add if it has none; None trains all parameters, of an adapter's base without
            the adapter.
        fresh: Whether to add it to an adapter's base, into which that adapter is merged.

    Raises:
        ConfigError: LoRA finds no module in it, or PEFT refuses it.
        ModelError: it cannot be loaded.
    """
    if lora is None:
        return base_outline(source, section)
    model = base_outline(source, section) if fresh else outline(source, section)
    return model if model is None or isinstance(model, PeftModel) else with_adapter(model, lora_config(lora))


def _check_trained(config: RunConfig, source: str, parameters: str, adapter: str = "continue") -> Any:
    """Check that the model has the parameters to train; return it without weights (None for an adapter on the hub)."""
    fresh = adapter == "fresh"
    model = _architecture(config.model, source, config.lora if parameters == "lora" else None, fresh)
    if (
        parameters == "lora"
        and not fresh
        and isinstance(model, PeftModel)
        and source != "tiny"
        and adapter_base(source) is not None
    ):
        check_lora(config.lora, model, base_outline(source, config.model), source)
    return model
