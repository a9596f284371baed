"""The stages of a run: base → target, oracle → localize → unlearn → evaluate. A stage is either complete or absent.

A stage depends only on its inputs and its seed, which it records. After a kill, `--resume` skips complete stages,
continues the interrupted one from its last complete checkpoint, and gives the numbers of an uninterrupted run. It
refuses a stage that was made with other settings.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from scopewise import schemas
from scopewise.attacks.oracle import check_base
from scopewise.config import EarlyStoppingSection, RunConfig, UnlearnSection, entry_name, split_entry
from scopewise.cost import Cost
from scopewise.data.load import with_suite
from scopewise.data.prompt import Encoded, Prompt, dropped_rows, encode, warn_of_dropped
from scopewise.data.rows import FORGET, RETAIN, SCOPES, TRAIN, Benchmark, Row
from scopewise.errors import DataError
from scopewise.files import remove
from scopewise.localizers.base import Scopes, localize_encoded, localizer_of
from scopewise.methods.base import make_method
from scopewise.methods.cross_entropy import Retrain
from scopewise.methods.wrappers.base import make_wrappers
from scopewise.models.adapters import lora_config, with_adapter
from scopewise.models.engine import Engine
from scopewise.models.load import adapter_base, load_model, load_tokenizer, save_model
from scopewise.models.merging import merged
from scopewise.models.parallel.fsdp import shard_model
from scopewise.models.parallel.processes import is_main, wait
from scopewise.models.tiny import build_tiny, tokenizer_texts
from scopewise.recipes import RECIPES
from scopewise.record import manifest
from scopewise.region import Region
from scopewise.registry import EXACT
from scopewise.runs.checks import (
    check_finetuning,
    check_localizing,
    check_oracle,
    check_retraining,
    check_run,
    check_unlearning,
)
from scopewise.runs.folder import RunFolder
from scopewise.runs.measurement import Measurement
from scopewise.runs.stages import decisive, identity, model_identity, unlearned_name
from scopewise.runs.train import curve, train
from scopewise.training.trainer import UnlearningTrainer

logger = logging.getLogger("scopewise")


@dataclass(frozen=True)
class BenchEntry:
    """An entry of a benchmark: a method with a localizer, or a recipe."""

    method: str
    localizer: str
    name: str

    @property
    def searched(self) -> bool:
        """Whether the tuned protocol searches its settings."""
        return self.method not in EXACT and self.name not in RECIPES

    @staticmethod
    def parse(text: str) -> BenchEntry:
        """Parse `method` or `method@localizer`; without a localizer it is the method's own."""
        return BenchEntry.of(*split_entry(text))

    @staticmethod
    def of(method: str, localizer: str | None) -> BenchEntry:
        """Return the entry of a method and a localizer (None for the method's own), or of a recipe."""
        if (recipe := RECIPES.get(method)) is not None:
            return BenchEntry(recipe.method, "all", method)
        return BenchEntry(method, localizer or make_method(method).localizer, entry_name(method, localizer))


@dataclass(frozen=True)
class Unlearned:
    """Result of an unlearning: the model, its region, its cost, and the rows that were too long."""

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase
    cost: Cost
    region: Region | None
    trainer: UnlearningTrainer
    dropped: dict[str, Any]


class Pipeline:
    """The stages of one run, in one run folder.

    Args:
        config: The run file.
        resume: Continue the run in the folder.
        overwrite: Overwrite the run folder.
        joins: The `RunFolder.token` of the benchmark that this job belongs to.
    """

    def __init__(
        self, config: RunConfig, *, resume: bool = False, overwrite: bool = False, joins: str | None = None
    ) -> None:
        config = with_suite(config)
        # Check data, model and method first: bad input must not leave an empty run folder or fail after hours.
        make_method(config.unlearn.method, **config.unlearn.method_args)
        make_wrappers(
            config.unlearn.method,
            config.unlearn.wrapper_args,
            others=[split_entry(entry)[0] for entry in config.bench.methods],
        )
        self.checked = check_run(config)
        self.benchmark = self.checked.benchmark
        self.config = config
        self.data_hash = self.benchmark.content_hash()
        self.folder = RunFolder(config, resume=resume, overwrite=overwrite, writes=is_main(), wait=wait, joins=joins)
        self.path = self.folder.path
        self.measurement = Measurement(config, self.benchmark, self.folder)
        self._checked_bases: set[str] = set()  # settings that name them

    # -- stages ---------------------------------------------------------------------------------------------------

    def base(self) -> str:
        """Return the path or name of the model before fine-tuning; for `tiny`, make it first."""
        model = self.config.model
        if model.path != "tiny":
            return model.path

        def build(work: Path) -> dict[str, Any]:
            made, tokenizer = build_tiny(tokenizer_texts(self.benchmark.rows), model.tiny, self.config.run.seed)
            if self.folder.writes:
                save_model(made, tokenizer, work)
            return {"parameters": made.num_parameters()}

        return str(self._stage("base", identity(self.config, "base", self.data_hash), build))

    def finetuned(self, which: str) -> Path:
        """Return the folder of the `target` (all rows) or `oracle` (retain rows only), fine-tuned unless given."""
        if which == "target" and self.config.model.target is not None:
            return Path(self.config.model.target)
        if which == "oracle" and self.config.model.oracle is not None:
            check_oracle(self.checked)
            self.check_base()
            return Path(self.config.model.oracle)
        if not self.folder.has(self.path / which):
            check_finetuning(self.checked)
            if which == "oracle":
                check_oracle(self.checked)
        self.base()
        if which == "oracle":
            self.check_base()
        scopes, seed = (RETAIN,) if which == "oracle" else SCOPES, self.config.run.seed

        def build(work: Path) -> dict[str, Any]:
            return self._finetune(work, scopes, seed, f"fine-tune {which}")

        return self._stage(which, identity(self.config, which, self.data_hash), build)

    def retrained(self, entry: BenchEntry, seed: int, protocol: str) -> Path:
        """Return the folder of a model that was fine-tuned as the oracle is, with another seed, as a row of a bench."""
        check_retraining(self.checked)
        self.base()
        self.check_base("model.path")
        # Never the oracle's own seed, whose distance to the oracle would be 0 by construction.
        training_seed = (self.config.run.seed + 1 + seed) % 2**32

        def build(work: Path) -> dict[str, Any]:
            made = self._finetune(work, (RETAIN,), training_seed, f"{entry.name}, seed {seed}")
            return {
                "method": entry.name,
                "localizer": entry.localizer,
                "protocol": protocol,
                "seed": seed,
                "settings": {**decisive(self.config, "finetune"), "seed": training_seed},
                "region_fraction": 1.0,
                **made,
                "cost": {**made["cost"], "localization_seconds": None, "localization": None},
                "probes": [],
            }

        inputs = identity(self.config, "retrain", self.data_hash, seed=training_seed)
        return self._stage(unlearned_name(entry.name, protocol, seed), inputs, build)

    def merged(self) -> Path:
        """Return the target with its adapter merged, for a fresh adapter; a target without an adapter is returned itself."""
        target = self.finetuned("target")
        if adapter_base(target) is None:
            return target

        def build(work: Path) -> dict[str, Any]:
            model = load_model(target, self.config.model)
            assert isinstance(model, PeftModel)
            if self.folder.writes:
                save_model(merged(model), load_tokenizer(target), work)
            return {}

        inputs = identity(self.config, "merged", self.data_hash, measured=model_identity(target))
        return self._stage("merged", inputs, build)

    def check_base(self, setting: str = "model.oracle") -> None:
        """Raise ModelError if a given oracle, or else the base, knows the forget rows; see `attacks.oracle.check_base`.

        The tiny model is not checked, since it is random; nor is a base whose oracle is already complete.

        Args:
            setting: `model.path` checks the base even if an oracle is given.
        """
        model = self.config.model
        path = model.oracle if setting == "model.oracle" else None
        if path is None:
            setting, path = "model.path", model.path
        known = path == "tiny" or (model.oracle is None and self.folder.has(self.path / "oracle"))
        if setting in self._checked_bases or (setting == "model.path" and known):
            return
        chosen = [item for item in self.checked.items if item.row.scope == FORGET and item.row.split == TRAIN]
        base = self.measurement.engine(path, "oracle")
        base.check(chosen)
        check_base(base, chosen, path, setting)
        self._checked_bases.add(setting)

    def region(self, localizer: str, seed: int, benchmark: Benchmark | None = None, prefix: str = "") -> Path:
        """Return the region file of a localizer for a seed, after that of the localizer whose size it takes, if any."""
        path = self.path / "regions" / f"{prefix}{localizer}-seed{seed}.json"
        rows = benchmark or self.benchmark
        inputs = identity(self.config, "region", rows.content_hash(), seed=seed)
        if self.folder.has(path):
            made = Region.load(path).origin or {}
            self.folder.same_inputs(path, made.get("inputs", {}), inputs)
            return path
        check_localizing(self.checked, localizer)
        sized = localizer_of(localizer, self.config.localize.localizer_args).takes_size_of
        size = None if sized is None else Region.load(self.region(sized, seed, benchmark, prefix))
        target = self.finetuned("target")
        tokenizer = load_tokenizer(target)
        model = shard_model(self._prepared(target, seed))
        forget, retain = (self._encode(rows.select(scope, TRAIN), tokenizer) for scope in (FORGET, RETAIN))
        settings, kernels = self.config.localize, self.config.model.kernels
        engine = Engine(model, tokenizer, self.config.data, max_tokens=settings.max_tokens, kernels=kernels)
        engine.check((*forget, *retain))
        with Cost() as cost, cost.step():
            found = localize_encoded(localizer, engine, Scopes(forget, retain, seed, size), settings.localizer_args)
        origin = {**manifest(self.config, self.data_hash), "inputs": inputs}
        rates = cost.rates()
        self.folder.keep_config()
        if self.folder.writes:
            found.with_origin(origin, rates if rates["tokens"] else None).save(path)
        wait()
        return path

    def unlearned(self, entry: BenchEntry, section: UnlearnSection, seed: int, protocol: str) -> Path:
        """Return the folder of an unlearned model, with its region (given, or from the localizer)."""
        check_unlearning(self.checked, section)
        if entry.method in EXACT:
            return self.retrained(entry, seed, protocol)
        chosen = self.config.model_copy(update={"unlearn": section})
        named = ("method", "localizer", "region")  # recorded under keys of their own
        settings = {key: value for key, value in decisive(chosen, "unlearn").items() if key not in named}

        def build(work: Path) -> dict[str, Any]:
            made = self._unlearn(work, entry, section, seed, self.benchmark, "")
            used, stopping = made.region, made.trainer.early_stopping
            if used is not None and self.folder.writes:
                used.save(work / "region.json")
            return {
                "method": entry.name,
                "localizer": entry.localizer,
                "protocol": protocol,
                "seed": seed,
                "settings": settings,
                "region_fraction": 1.0 if used is None else used.fraction,
                **made.dropped,
                "cost": {
                    **made.cost.document(),
                    "localization_seconds": None if used is None else used.seconds,
                    "localization": None if used is None else used.cost,
                },
                "probes": [asdict(one) for one in stopping.evaluations] if stopping else [],
                "curve": curve(made.trainer),
            }

        inputs = self._identity("model", entry, section, seed, self.data_hash)
        name = unlearned_name(entry.name, protocol, seed)
        if not self.folder.has(self.path / name):
            self.finetuned("target")  # if it has other settings, refuse before beginning this stage
        return self._stage(name, inputs, build)

    def trial(
        self, entry: BenchEntry, section: UnlearnSection, part: Benchmark, seed: int, name: str
    ) -> tuple[float, float]:
        """Return Unlearn and Retention Success (percent) on the val rows of `part` after unlearning its train rows.

        Args:
            entry: Method and localizer.
            section: The settings of the trial.
            part: Train rows, some of them as val rows.
            seed: Of the unlearning.
            name: Path of the trial's results inside the run folder, without suffix.
        """
        path = self.path / f"{name}.json"
        inputs = self._identity("trial", entry, section, seed, part.content_hash())
        if self.folder.has(path):
            kept = schemas.read(path, schemas.TrialDocument)
            self.folder.same_inputs(path, kept["inputs"], inputs)
            return kept["unlearn_success"], kept["retention_success"]
        work = self.path / f"{name}.partial"
        self.folder.begin(work, inputs)
        made = self._unlearn(work, entry, section, seed, part, "tuning-")
        settings, kernels = self.config.evaluate, self.config.model.kernels
        engine = Engine(
            made.model, made.tokenizer, self.config.data, max_tokens=settings.max_tokens, kernels=kernels, name=name
        )
        measured = self._measured(path, engine, part, inputs)
        if self.folder.writes:
            remove(work)
        return measured

    def held_out(self, which: str, part: Benchmark) -> tuple[float, float]:
        """Return Unlearn and Retention Success (percent) of the `target` or `oracle` on the val rows of `part`."""
        model = self.finetuned(which)
        path = self.path / "tuning" / f"{which}.json"
        inputs = identity(self.config, "held out", part.content_hash(), measured=model_identity(model))
        if self.folder.has(path) and (kept := schemas.read(path, schemas.TrialDocument))["inputs"] == inputs:
            return kept["unlearn_success"], kept["retention_success"]
        engine = self.measurement.engine(model, f"{which}, held-out train")
        return self._measured(path, engine, part, inputs)

    # -- shared by the stages -------------------------------------------------------------------------------------

    def _measured(self, path: Path, engine: Engine, part: Benchmark, inputs: dict[str, Any]) -> tuple[float, float]:
        """Measure both successes on the val rows of `part`, write them to a file, and return them."""
        unlearn, retention = self.measurement.successes(engine, part)
        measured = {"format": schemas.TrialDocument.FORMAT, "unlearn_success": unlearn, "retention_success": retention}
        self.folder.write(path, {**measured, "inputs": inputs})
        return unlearn, retention

    def _finetune(self, work: Path, scopes: Collection[str], seed: int, name: str) -> dict[str, Any]:
        """Fine-tune the base on the taught rows of some scopes, and return what the stage records."""
        base, model = self.base(), self.config.model
        tokenizer = load_tokenizer(base, model.revision)
        rows = [r for r in self.benchmark.rows if r.scope in scopes and r.split in self.benchmark.taught]
        items = self._encode(rows, tokenizer, eos=True)
        cost, trainer = train(
            self.folder,
            work,
            self.config.finetune,
            seed,
            name,
            early_stopping=EarlyStoppingSection(rows=0),
            model=load_model(base, model),
            method=Retrain(),
            forget_dataset=items,
            processing_class=tokenizer,
            region="all",
        )
        return {"rows": len(items), **_dropped(rows, items), "cost": cost.document(), "curve": curve(trainer)}

    def _unlearn(
        self,
        work: Path,
        entry: BenchEntry,
        section: UnlearnSection,
        seed: int,
        benchmark: Benchmark,
        prefix: str,
    ) -> Unlearned:
        target = self.finetuned("target")
        region = Region.load(section.region) if section.region is not None else None
        if region is None and entry.localizer != "all":
            region = Region.load(self.region(entry.localizer, seed, benchmark, prefix))
        tokenizer = load_tokenizer(target)
        method = make_method(entry.method, **section.method_args)
        general = self._encode(benchmark.general, tokenizer) if method.retain_data != "retain" else None
        kept = (TRAIN,) if section.retain_rows == "train" else benchmark.taught
        to_retain = [row for row in benchmark.rows if row.scope == RETAIN and row.split in kept]
        rows = [benchmark.select(FORGET, TRAIN), to_retain]
        forget, retain = (self._encode(part, tokenizer) for part in rows)
        model = self._prepared(target, seed, section)
        wrappers = make_wrappers(entry.method, section.wrapper_args)
        name = f"{entry.name}, seed {seed}"
        if prefix:  # a trial
            name = f"tune {entry.name}, lr {section.learning_rate:.2g}, {section.num_train_epochs:.2g} epochs"
        base_model = None
        if any(wrapper.needs_base for wrapper in wrappers) and not isinstance(model, PeftModel):
            base = self.base()
            base_model = load_model(base, self.config.model)
        cost, trainer = train(
            self.folder,
            work,
            section,
            seed,
            name,
            early_stopping=section.early_stopping,
            expand=section.expand,
            held_out=[
                row.question
                for row in (*self.benchmark.rows, *benchmark.rows)  # a trial also holds out train rows
                if row.split != TRAIN or row.scope not in SCOPES
            ],
            model=model,
            method=method,
            wrappers=wrappers,
            base_model=base_model,
            forget_dataset=forget,
            retain_dataset=retain,
            general_dataset=general,
            processing_class=tokenizer,
            region=region or "all",
        )
        dropped = _dropped([row for part in rows for row in part], [*forget, *retain])
        return Unlearned(trainer.accelerator.unwrap_model(trainer.model), tokenizer, cost, region, trainer, dropped)

    def _prepared(self, target: Path, seed: int, section: UnlearnSection | None = None) -> PreTrainedModel | PeftModel:
        """Load the target for unlearning: with a trainable adapter, or with all parameters trainable."""
        section = section or self.config.unlearn
        # The adapter's config will contain this path; absolute, so that it loads from any folder.
        path = target.resolve() if target.exists() else target
        if section.parameters == "lora":
            path = path if section.adapter == "continue" else self.merged().resolve()
            model = load_model(path, self.config.model, trainable=True)
            return with_adapter(model, lora_config(self.config.lora), seed)
        model = load_model(path, self.config.model, trainable=True)
        # The base of an adapter is frozen, so merge the adapter and train all parameters.
        return merged(model).requires_grad_(True) if isinstance(model, PeftModel) else model

    def _encode(self, rows: Sequence[Any], tokenizer: PreTrainedTokenizerBase, eos: bool = False) -> list[Encoded]:
        data = self.config.data
        kept = encode(rows, tokenizer, Prompt.of(data), data.max_length, eos=eos, over_length=data.over_length)
        warn_of_dropped(dropped_rows(rows, kept), len(rows))
        if rows and not kept:
            raise DataError(f"data.max_length: {data.max_length} tokens; none of {len(rows)} rows fits; set more")
        return kept

    def _identity(
        self, stage: str, entry: BenchEntry, section: UnlearnSection, seed: int, content: str
    ) -> dict[str, Any]:
        """Return the identity of an unlearning, with the hash of a given region instead of its path."""
        region = None if section.region is None else Region.load(section.region).content_hash()
        chosen = section.model_copy(update={"method": entry.method, "localizer": entry.localizer, "region": region})
        config = self.config.model_copy(update={"unlearn": chosen})
        without = ("localize",) if region is not None or entry.localizer == "all" else ()
        return identity(config, stage, content, without=without, seed=seed)

    def _stage(self, name: str, inputs: dict[str, Any], build: Callable[[Path], dict[str, Any]]) -> Path:
        return self.folder.stage(name, inputs, self.data_hash, build)


def _dropped(rows: Sequence[Row], kept: Sequence[Encoded]) -> dict[str, Any]:
    """Return the origins of rows left out as too long, under `dropped`; empty if there are none."""
    dropped = [row.origin for row in dropped_rows(rows, kept)]
    return {"dropped": dropped} if dropped else {}
