"""The sections of the run file, which describes one run: settings, their defaults and their allowed values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from scopewise.errors import ConfigError
from scopewise.recipes import RECIPES
from scopewise.registry import allowed, canonical, canonical_method
from scopewise.section import Section, sentence


def _pattern(value: str) -> str:
    """Return a regular expression unchanged, or raise ValueError."""
    try:
        re.compile(value)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"not a regular expression ({error}); correct it") from None
    return value


Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""The range of NumPy's seeds."""


def _method_or_recipe(name: str) -> str:
    """Return the key of a method, with or without wrappers, or of a recipe. Raises ConfigError as `canonical_method`."""
    key = name.replace("-", "_")
    return key if key in RECIPES else canonical_method(name, RECIPES)


def split_entry(entry: str) -> tuple[str, str | None]:
    """Split `method` or `method@localizer` into (method, localizer or None); both must be known."""
    method, at, localizer = entry.partition("@")
    if at and _method_or_recipe(method) in RECIPES:
        raise ConfigError(f"bench.methods: {entry!r}; {method} is a recipe, which trains all parameters; leave '@' out")
    if at and not localizer:
        raise ConfigError(f"bench.methods: {entry!r}; no localizer after '@'; name one, or leave '@' out")
    return _method_or_recipe(method), canonical("localizers", localizer) if localizer else None


def entry_name(method: str, localizer: str | None) -> str:
    """Return `method` or `method@localizer`."""
    return method if localizer is None else f"{method}@{localizer}"


def _named(kind: str) -> AfterValidator:
    """Return what turns a name into its key in a table; ConfigError for an unknown name."""
    return AfterValidator(partial(canonical, kind))


BenchmarkName = Annotated[str, _named("benchmarks")]
LocalizerName = Annotated[str, _named("localizers")]
MetricName = Annotated[str, _named("metrics")]
AttackName = Annotated[str, _named("attacks")]
WrapperName = Annotated[str, _named("wrappers")]
MethodName = Annotated[str, AfterValidator(_method_or_recipe)]
EntryName = Annotated[str, AfterValidator(lambda entry: entry_name(*split_entry(entry)))]


class RunSection(Section):
    """The run folder, and the seed of the stages that a benchmark runs once (base, target, oracle)."""

    dir: str = Field("runs/run", min_length=1)
    seed: Seed = 0


class TinyConfig(Section):
    """Sizes of the tiny model (`model.path: tiny`)."""

    vocab_size: int = Field(4096, ge=300)
    width: int = Field(256, ge=16)
    layers: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    context: int = Field(512, ge=16)

    @model_validator(mode="after")
    def _divisible(self) -> TinyConfig:
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} is not divisible by twice the {self.heads} heads")
        return self


class ModelSection(Section):
    """The model before fine-tuning: `tiny` (made from scratch), a folder, a GGUF file (extra `gguf`), or a hub name.

    `target` is a model that knows all rows, used instead of fine-tuning one; `oracle` is a model that was fine-tuned
    from the same base on the retain rows only. `quantization: nf4` loads the base in 4 bits (QLoRA; needs the extra
    `quantize`); `attention: auto` chooses an implementation. `kernels: off` disables the optional kernels: slower,
    with the same results except for rounding.
    """

    path: str = "tiny"
    target: str | None = None
    oracle: str | None = None
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    quantization: Literal["none", "nf4"] = "none"
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    kernels: Literal["auto", "off"] = "auto"
    tiny: TinyConfig = TinyConfig()


class DataSection(Section):
    """The benchmark and the prompt format; the benchmark itself has defaults for settings that are not given.

    `system_role: user` puts the system message before the question, for chat templates without a system role.

    `domain` selects a part of the benchmark; docs/benchmarks.md lists them. `instances` keeps only the rows about this many
    persons or books of each scope, for a quick run.
    """

    benchmark: BenchmarkName = "builtin"
    path: str | None = None
    domain: str | None = None
    instances: int | None = Field(None, ge=1)
    general: str | None = None
    prompt: str = "plain"
    system: str | None = None
    system_role: Literal["system", "user"] = "system"
    max_length: int = Field(256, ge=8)
    over_length: Literal["error", "drop"] = "error"

    @field_validator("prompt")
    @classmethod
    def _format(cls, value: str) -> str:
        if value not in ("plain", "chat") and "{question}" not in value:
            raise ValueError("plain, chat, or a text with {question} in it that stands before the answer")
        return value


def _renamed(**names: str) -> dict[str, str]:
    """Return entries of `REFUSED` for renamed settings: old name → new name."""
    return {old: f"it is now called {new!r}, as in the library; rename it" for old, new in names.items()}


class LoraSection(Section):
    """LoRA, with the names of `peft.LoraConfig`; the defaults are those of Table 7 of the paper.

    `use_dora`, `use_rslora`, `lora_bias` and `init_lora_weights` choose a variant of LoRA. `rank_pattern` and
    `alpha_pattern` set rank or alpha of single layers, `layers_to_transform` adapts only these blocks,
    `modules_to_save` trains whole modules, `trainable_token_indices` trains rows of the embedding, and
    `target_parameters` adapts parameters outside linear layers.
    """

    REFUSED: ClassVar[Mapping[str, str]] = {
        **_renamed(alpha="lora_alpha", dropout="lora_dropout"),
        "fan_in_fan_out": "it follows from the model; remove it",
        "task_type": "it is always CAUSAL_LM; remove it",
        "inference_mode": "it follows from the command; remove it",
        "alora_invocation_tokens": "a mask that depends on the prompt is not supported; remove it",
        "arrow_config": "routing among several adapters is not supported; remove it",
        "layer_replication": "it makes another model, without an oracle to compare with; remove it",
        "megatron_config": "Megatron's layers are not supported; remove it",
        "megatron_core": "Megatron's layers are not supported; remove it",
        "runtime_config": "it is for inference; remove it",
        "use_bdlora": "it is for serving on several devices; remove it",
        "use_qalora": "GPTQ models are not trained here; set model.quantization=nf4",
        "qalora_group_size": "GPTQ models are not trained here; set model.quantization=nf4",
        **dict.fromkeys(
            ("loftq_config", "eva_config", "corda_config", "lora_ga_config"),
            "initializations that are computed from data or from a quantized base are not supported; remove it",
        ),
        **dict.fromkeys(
            ("velora_config", "monteclora_config", "kasa_config"),
            "this variant changes how LoRA is trained or merged, which regions do not allow; remove it",
        ),
    }

    r: int = Field(8, ge=1)
    lora_alpha: int = Field(16, gt=0)
    lora_dropout: float = Field(0.1, ge=0, lt=1)
    target_modules: str | tuple[str, ...] | None = "all-linear"
    exclude_modules: str | tuple[str, ...] | None = None
    bias: Literal["none", "all", "lora_only"] = "none"
    use_rslora: bool = False
    use_dora: bool = False
    lora_bias: bool = False
    init_lora_weights: bool | str = True
    modules_to_save: tuple[str, ...] | None = None
    trainable_token_indices: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    layers_to_transform: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    layers_pattern: str | tuple[str, ...] | None = None
    rank_pattern: dict[str, Annotated[int, Field(ge=1)]] = {}
    alpha_pattern: dict[str, Annotated[int, Field(ge=1)]] = {}
    target_parameters: tuple[str, ...] | None = None
    ensure_weight_tying: bool = False

    def __hash__(self) -> int:
        """Return a hash of the JSON, since mappings have none."""
        return hash(self.model_dump_json())

    @field_validator("target_modules", "exclude_modules")
    @classmethod
    def _regular(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        return _pattern(value) if isinstance(value, str) and value != "all-linear" else value

    @field_validator("rank_pattern", "alpha_pattern")
    @classmethod
    def _patterns(cls, value: dict[str, int]) -> dict[str, int]:
        return {_pattern(key): number for key, number in value.items()}

    @field_validator("init_lora_weights")
    @classmethod
    def _initialized(cls, value: bool | str) -> bool | str:
        known = ("gaussian", "orthogonal", "mica", "olora", "pissa")
        if isinstance(value, str) and value not in known:
            if value.startswith("pissa_niter"):
                raise ValueError("its random decomposition cannot be repeated when the adapter is loaded; set pissa")
            if value in ("eva", "corda", "loftq", "lora_ga"):
                raise ValueError(
                    "it is computed from data or from a quantized base, which is not supported; choose another"
                )
            raise ValueError(allowed(value, ("true", "false", *known)))
        return value


class TrainingSection(Section):
    """Training settings of fine-tuning and unlearning, under their names in `transformers.TrainingArguments`.

    Three are our own: `parameters` (train LoRA, or all parameters), `batch_size` and `save_minutes`. `batch_size` is
    the total over all processes, so that a run file gives the same numbers on any number of them; rows per optimizer
    step = `batch_size` x `gradient_accumulation_steps`. `warmup_steps` below 1 is a fraction of all steps.
    `lr_scheduler_type` is one that needs no arguments. `optim` may be any optimizer of `transformers`
    (`paged_adamw_32bit` keeps its state in host memory). `torch_compile` compiles each decoder block. A checkpoint is
    saved every `save_steps`, and also every `save_minutes` (null: never), or less often if saving would take more than
    2 % of the time.
    """

    REFUSED: ClassVar[Mapping[str, str]] = {
        **_renamed(
            epochs="num_train_epochs",
            warmup_ratio="warmup_steps",
            scheduler="lr_scheduler_type",
            gradient_checkpointing="activation_checkpointing",
            optimizer="optim",
            compile="torch_compile",
            checkpoint_steps="save_steps",
            checkpoint_minutes="save_minutes",
        ),
        "per_device_train_batch_size": "a batch is shared among all processes; set batch_size to the rows of all of them",
    }

    parameters: Literal["lora", "all"] = "lora"
    learning_rate: float = Field(1e-4, gt=0)
    num_train_epochs: float = Field(10.0, gt=0)
    batch_size: int = Field(16, ge=1)
    gradient_accumulation_steps: int = Field(1, ge=1)
    warmup_steps: float = Field(0.03, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, ge=0)
    lr_scheduler_type: Literal[
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "constant",
        "constant_with_warmup",
        "inverse_sqrt",
    ] = "cosine"
    bf16: bool = False
    activation_checkpointing: bool = False
    optim: str = "adamw_torch_fused"
    torch_compile: bool = False
    save_steps: int = Field(500, ge=1)
    save_minutes: float | None = Field(5.0, gt=0)


class FinetuneSection(TrainingSection):
    """Stage 1: fine-tune the target on train and val rows of both scopes, the oracle on those of the retain scope."""

    weight_decay: float = Field(1e-4, ge=0)
    batch_size: int = Field(64, ge=1)


Arguments = dict[str, bool | int | float | str | list[int | float | str] | None]
"""Settings of one method, localizer, metric or attack, which its class checks."""


class LocalizeSection(Section):
    """Stage 2: choose the parameters that unlearning may change; `localizer_args` are the settings of the localizer.

    docs/methods.md lists them. In a benchmark with several localizers, each takes the settings that it has; a setting
    that none of them has is refused. `max_tokens` are the padded tokens of a batch; on a CPU at most 384, which is as fast.
    """

    localizer_args: Arguments = {}
    max_tokens: int = Field(4096, ge=1)

    REFUSED: ClassVar[Mapping[str, str]] = {
        name: f"it is now localize.localizer_args.{name}; write it there"
        for name in (
            *("repeats", "threshold", "mu", "sigma", "fraction", "unit", "corrupt", "gamma", "overlap_fraction"),
            *("core_fraction", "pattern", "size_of", "gradient_gigabytes"),
        )
    }


class EarlyStoppingSection(Section):
    """Early stopping: evaluate a few train rows during unlearning; `rows: 0` disables it.

    `steps` is the number of steps between two evaluations (0: five evaluations per training); `keep_best` restores the
    state with the best trade-off; `patience` stops after this many evaluations without improvement (0: never).
    `max_kl` stops any method after the first evaluation at which the KL to the model before unlearning, on the answers of
    the evaluated retain rows, exceeds it (nats per token; unset: never).
    """

    rows: int = Field(32, ge=0)
    steps: int = Field(0, ge=0)
    keep_best: bool = False
    patience: int = Field(0, ge=0)
    max_kl: float | None = Field(None, gt=0)


class ExpandSection(Section):
    """Further rows to unlearn with: self-questions, which the target answers before unlearning, and given paraphrases.

    Self-questions: the question of each row is asked about the other instances, and the target's own answer is kept if its
    mean negative log-likelihood is below `max_nll` (nats per token). `retain` and `forget` are the largest numbers of
    questions to ask from the rows of that scope (0: none). Answers to questions from retain rows become retain rows whose
    loss is KL to the target; those from forget rows become forget rows. Questions that also occur in val or in the other
    scope are not asked.

    `paraphrases` is the largest number of each forget row's `paraphrased_questions` that become forget rows with the same
    answer (0: none). Those that also occur in val, in the other scope or in `indirect` are left out.
    """

    retain: int = Field(0, ge=0)
    forget: int = Field(0, ge=0)
    max_nll: float = Field(0.25, gt=0)
    paraphrases: int = Field(0, ge=0)


class UnlearnSection(TrainingSection):
    """Stage 3: Table 7 of the paper; `method_args` are the hyper-parameters of the method.

    A method may have wrappers, as in `method: npo+sam`; `wrapper_args: {sam: {rho: 0.02}}` are their settings.
    If the target was fine-tuned with LoRA, `adapter` selects what is trained: `continue` trains its adapter further, as in
    the paper; `fresh` merges it into the base and adds a new one, whose B is zero. (`parameters: all` merges it and trains
    all matrices.) A target without an adapter gets a new one in both cases.

    `retain_rows: taught` also trains on the retain rows of val that the target was taught, as `retrain` and the oracle do: the
    case of a user who holds all rows to keep. Val then no longer measures retention of facts that no retain row asks for.
    """

    adapter: Literal["continue", "fresh"] = "continue"
    retain_rows: Literal["train", "taught"] = "train"
    method: MethodName = "memflex"
    localizer: LocalizerName | None = None
    region: str | None = None
    learning_rate: float = Field(5e-5, gt=0)
    num_train_epochs: float = Field(2.0, gt=0)
    batch_size: int = Field(16, ge=1)
    method_args: Arguments = {}
    wrapper_args: dict[WrapperName, Arguments] = {}
    expand: ExpandSection = ExpandSection()
    early_stopping: EarlyStoppingSection = EarlyStoppingSection()

    REFUSED: ClassVar[Mapping[str, str]] = {
        **TrainingSection.REFUSED,
        "guard": "it is now called 'early_stopping'; rename it",
    }


DEFAULT_METRICS = (
    "unlearn_success",
    "retention_success",
    "average_success",
    "perplexity",
    "rouge_l_teacher_forced",
    "rouge_l_generated",
)
"""The metrics if neither the run file nor the benchmark names any."""


PAPER_ABILITY = ("mmlu", "arc_challenge", "truthfulqa_mc2", "social_iqa", "race")
"""The five tasks of the paper's general average, with their names in lm-evaluation-harness."""


class AbilitySection(Section):
    """General ability with lm-evaluation-harness; not evaluated without tasks.

    `tasks` are names of the harness, or `paper` for the five tasks of the paper; `path` is a folder of local files
    (unset: the hub); `limit` takes only the first questions of each task (each subject of MMLU), or of those named;
    `shots` is the number of few-shot examples, by task.
    """

    tasks: tuple[str, ...] = ()
    path: str | None = None
    limit: Annotated[int, Field(ge=1)] | dict[str, Annotated[int, Field(ge=1)]] | None = None
    shots: dict[str, Annotated[int, Field(ge=0)]] = {}
    chat_template: bool = False

    def most(self, task: str) -> int | None:
        """Return how many questions of a task (of each subject of MMLU) are asked at most; None: all."""
        return self.limit.get(task) if isinstance(self.limit, dict) else self.limit

    @field_validator("tasks")
    @classmethod
    def _paper(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = (name for given in value for name in (PAPER_ABILITY if given == "paper" else (given,)))
        return tuple(dict.fromkeys(names))


class PartSection(Section):
    """Generation settings of a part: maximum number of new tokens (None: `evaluate.max_new_tokens`), and stop strings."""

    max_new_tokens: int | None = Field(None, ge=1)
    stop: tuple[str, ...] = ()


class EvaluateSection(Section):
    """Stage 4: metrics, splits and how they are evaluated; the benchmark has defaults for settings that are not given.

    `eos` counts the end-of-sequence token as part of the answer, for metrics that do so; the models are paths or hub names
    of judges that run locally; without one, metrics note what they used instead. `parts` names attributes whose rows are
    evaluated separately, as `metric/val.ATTRIBUTE`, and not with the others. `metric_args` are settings by metric;
    docs/metrics.md lists them.
    """

    metrics: tuple[MetricName, ...] = DEFAULT_METRICS
    metric_args: dict[MetricName, Arguments] = {}
    splits: tuple[Literal["train", "val"], ...] = ("train", "val")
    generate_splits: tuple[Literal["train", "val"], ...] = ("val",)
    direct_splits: tuple[Literal["train", "val"], ...] = ("train", "val")
    max_new_tokens: int = Field(64, ge=1)
    max_tokens: int = Field(4096, ge=1)
    eos: bool = False
    parts: dict[str, PartSection] = {}
    reference_model: str | None = None
    entailment_model: str | None = None
    fluency_model: str | None = None
    language_model: str | None = None
    ability: AbilitySection = AbilitySection()


class TuneSection(Section):
    """The hyper-parameter search, the same for every method: on a held-out part of train, never on val.

    Each method gets the same number of trials, and the same ranges (low, high; on a logarithmic scale) of `learning_rate`
    and `num_train_epochs`. Its retain weight is searched from an eighth to eight times its own value (`retain_weight`: one
    range for all instead), and its other hyper-parameters in the ranges that docs/methods.md names; `knobs` sets ranges by
    method, also of a wrapper's settings: `npo+sam: {sam.rho: [0.001, 0.1]}`. A search in which nothing was forgotten raises
    the upper end of `learning_rate` to four times, up to `extensions` times, within the same number of trials. `choose`
    selects the trial: the highest Average Success, or the one closest to the oracle. `holdout` says which train rows are held
    out: `random` ones, or the `last` ones of each person or book, where train and val are different facts in that order
    (KnowUnDo), so that few of the held-out rows repeat what is in train.
    """

    trials: int = Field(20, ge=1)
    learning_rate: tuple[float, float] = (1e-5, 1e-3)
    num_train_epochs: tuple[float, float] = (2.0, 20.0)
    retain_weight: tuple[float, float] | None = None
    knobs: dict[str, dict[str, tuple[float, float]]] = {}
    extensions: int = Field(3, ge=0, le=8)
    choose: Literal["average", "oracle"] = "average"
    holdout: Literal["random", "last"] = "random"
    holdout_fraction: float = Field(0.2, gt=0, lt=1)
    seed: Seed = 0

    @field_validator("learning_rate", "num_train_epochs", "retain_weight")
    @classmethod
    def _range(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 < value[0] <= value[1]:
            raise ValueError("a range is [low, high] with 0 < low <= high")
        return value

    @field_validator("knobs")
    @classmethod
    def _known(cls, value: dict[str, dict[str, tuple[float, float]]]) -> dict[str, dict[str, tuple[float, float]]]:
        for ranges in value.values():
            for low_high in ranges.values():
                cls._range(low_high)
        return {_method_or_recipe(name): ranges for name, ranges in value.items()}


class ClusterSection(Section):
    """Resources of a job with `bench.engine: ray` or `slurm`; a job is one method and seed, one region, or one search.

    `address` is that of a Ray cluster (unset: this machine only); `retries` counts lost or failed jobs. `minutes`,
    `partition`, `account` and `setup` (shell lines before each job) are for SLURM; `scheduler: local` runs submitit
    without SLURM.
    """

    cpus: float = Field(1, gt=0)
    gpus: float = Field(0, ge=0)
    memory_gigabytes: float | None = Field(None, gt=0)
    retries: int = Field(2, ge=0)
    address: str | None = None
    minutes: int = Field(720, ge=1)
    partition: str | None = None
    account: str | None = None
    setup: tuple[str, ...] = ()
    scheduler: Literal["slurm", "local", "debug"] = "slurm"


class BenchSection(Section):
    """Every method x seed on one target. An entry is `method`, `method+wrapper`, or either with `@localizer`.

    `settings` changes the `unlearn` section by method, in every protocol; `paper` only in the paper's protocol. Both also
    apply to the method with wrappers, which may have additional settings of its own. `engine` runs the jobs in this
    process, as tasks on a Ray cluster, or as SLURM jobs.
    """

    methods: tuple[EntryName, ...] = Field(("memflex",), min_length=1)
    seeds: tuple[Seed, ...] = Field((0,), min_length=1)
    protocols: tuple[Literal["paper", "tuned"], ...] = Field(("paper",), min_length=1)
    oracle: bool = True
    settings: dict[str, dict[str, Any]] = {}
    paper: dict[str, dict[str, Any]] = {}
    tune: TuneSection = TuneSection()
    engine: Literal["local", "ray", "slurm"] = "local"
    cluster: ClusterSection = ClusterSection()

    @field_validator("methods", "seeds", "protocols")
    @classmethod
    def _once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        twice = [one for i, one in enumerate(value) if one in value[:i]]
        if twice:
            raise ValueError(f"{twice[0]!r} twice; name each once")
        return value

    @field_validator("settings", "paper")
    @classmethod
    def _known_settings(cls, value: dict[str, dict[str, Any]], info: Any) -> dict[str, dict[str, Any]]:
        for method, changes in value.items():
            for key in ("method", "localizer"):
                if key in changes:
                    raise ConfigError(
                        f"bench.{info.field_name}.{method}.{key}: {changes[key]!r}; a bench takes method and "
                        "localizer from bench.methods, as method@localizer; remove it"
                    )
            try:
                UnlearnSection(**{**changes, "method": _method_or_recipe(method)})
            except ValidationError as error:
                raise ConfigError(sentence(error, UnlearnSection, "bench", info.field_name, method)) from None
        return {_method_or_recipe(method): changes for method, changes in value.items()}


class AttackSection(Section):
    """Attacks on unlearned models: `attacks` by name (unset: all of the suite), and `attack_args` by attack.

    `rows` is the largest number of forget rows to test (whole instances). Leakage is a leak if its whole interval is
    above `threshold`. docs/attacks.md lists the settings of each attack; the suite sets the defaults.
    """

    suite: Literal["quick", "full"] = "quick"
    attacks: tuple[AttackName, ...] = ()
    attack_args: dict[AttackName, Arguments] = {}
    models: tuple[str, ...] = ()
    rows: int = Field(200, ge=1)
    threshold: float = Field(0.1, gt=0, lt=1)
    max_tokens: int = Field(4096, ge=1)
    seed: Seed = 0

    REFUSED: ClassVar[Mapping[str, str]] = {
        name: f"it is now attack.attack_args.{now}; write it there"
        for name, now in {
            **{name: f"relearning.{name}" for name in ("steps", "batch_size")},
            "learning_rate": "relearning.learning_rates",
            **{name: f"sampling.{name}" for name in ("samples", "max_new_tokens")},
            "prompts": "prompts.file",
        }.items()
    }


class RunConfig(Section):
    """A whole run file."""

    run: RunSection = RunSection()
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    finetune: FinetuneSection = FinetuneSection()
    lora: LoraSection = LoraSection()
    localize: LocalizeSection = LocalizeSection()
    unlearn: UnlearnSection = UnlearnSection()
    evaluate: EvaluateSection = EvaluateSection()
    bench: BenchSection = BenchSection()
    attack: AttackSection = AttackSection()
