"""The stages of a run: base → target, oracle → localize → unlearn → evaluate. Each stage is done or not begun.

A stage depends on its inputs and its seed alone, and keeps what they were: after a kill at any moment `--resume` skips
finished stages, goes on with the last complete checkpoint of the one that was under way, and reaches the numbers of an
undisturbed run; a stage that was made with other settings is refused.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from scopewise import record, schemas
from scopewise.attacks.oracle import check_base
from scopewise.checks import check_finetuning, check_localizing, check_oracle, check_run, check_unlearning
from scopewise.config import (
    AbilitySection,
    GuardSection,
    RunConfig,
    Section,
    TrainingSection,
    UnlearnSection,
    entry_name,
    split_entry,
)
from scopewise.cost import Cost
from scopewise.data.load import with_suite
from scopewise.data.prompt import Encoded, Prompt, dropped_rows, encode, warn_of_dropped
from scopewise.data.rows import FORGET, RETAIN, SCOPES, TRAIN, VAL, Benchmark, Row
from scopewise.errors import ConfigError, DataError
from scopewise.evaluation import Evaluation, evaluate, read_evaluation
from scopewise.files import remove
from scopewise.localizers.base import Scopes, localize_encoded
from scopewise.methods.base import make_method
from scopewise.metrics.base import Reference
from scopewise.models.adapters import lora_config, with_adapter
from scopewise.models.engine import Engine
from scopewise.models.load import load_model, load_tokenizer, loading, save_model
from scopewise.models.merging import merged
from scopewise.models.parallel.fsdp import shard_model
from scopewise.models.parallel.processes import is_main, on_deepspeed, processes, wait
from scopewise.models.tiny import build_tiny, tokenizer_texts
from scopewise.models.vocabulary import check_vocabulary
from scopewise.region import Region
from scopewise.training.checkpoints import Checkpoints
from scopewise.training.finetune import Descent
from scopewise.training.progress import TrainingProgress, fault_of, quiet
from scopewise.training.trainer import UnlearningConfig, UnlearningTrainer

logger = logging.getLogger("scopewise")

_ARGUMENTS = set(TrainingSection.model_fields) - {"parameters", "batch_size", "bf16", "save_steps", "save_minutes"}
"""Settings that are handed on to `UnlearningConfig` under their own names."""
BENCH_PROTOCOLS = ("paper", "tuned")


@dataclass(frozen=True)
class Entry:
    """One line of a bench: a method on a localizer, under a protocol."""

    method: str
    localizer: str
    name: str

    @staticmethod
    def parse(text: str) -> Entry:
        """Read `method` or `method@localizer`; without one it is the method's own."""
        return Entry.of(*split_entry(text))

    @staticmethod
    def of(method: str, localizer: str | None) -> Entry:
        """Return the entry of a method and a localizer; None takes the method's own."""
        return Entry(method, localizer or make_method(method).localizer, entry_name(method, localizer))


@dataclass(frozen=True)
class Unlearned:
    """What an unlearning gives: the model, on the region and the rows it was trained on, at its cost."""

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase
    cost: Cost
    region: Region | None
    trainer: UnlearningTrainer
    dropped: dict[str, Any]


class Pipeline:
    """The stages of one run, on one run folder.

    Args:
        config: The run file.
        resume: Go on with the run in the folder.
        overwrite: Begin it anew.
        joins: The `RunFolder.token` of the bench that this is a job of.
    """

    def __init__(
        self, config: RunConfig, *, resume: bool = False, overwrite: bool = False, joins: str | None = None
    ) -> None:
        config = with_suite(config)
        # Data, model and method first: bad input must not leave an empty run behind, nor show after hours of training.
        make_method(config.unlearn.method, **config.unlearn.method_args)
        self.checked = check_run(config)
        self.benchmark = self.checked.benchmark
        self.config = config
        self.data_hash = self.benchmark.content_hash()
        self.folder = record.RunFolder(
            config, resume=resume, overwrite=overwrite, writes=is_main(), wait=wait, joins=joins
        )
        self.path = self.folder.path
        self._base_asked = False

    # -- stages ---------------------------------------------------------------------------------------------------

    def base(self) -> str:
        """Return the path or name of the model before fine-tuning; makes the tiny one where it is asked for."""
        model = self.config.model
        if model.path != "tiny":
            return model.path

        def build(work: Path) -> dict[str, Any]:
            made, tokenizer = build_tiny(tokenizer_texts(self.benchmark.rows), model.tiny, self.config.run.seed)
            if self.folder.writes:
                save_model(made, tokenizer, work)
            return {"parameters": made.num_parameters()}

        inputs = {"model.tiny": model.tiny.model_dump(), "run.seed": self.config.run.seed, "data": self.data_hash}
        return str(self._stage("base", inputs, build))

    def finetuned(self, which: str) -> Path:
        """Return the folder of the `target` (all rows of both scopes) or the `oracle` (the retain scope only)."""
        if which == "target" and self.config.model.target is not None:
            return Path(self.config.model.target)
        if which == "oracle" and self.config.model.target is not None and self.config.model.path == "tiny":
            raise ConfigError(
                "model.path: 'tiny', while model.target is another model; the oracle has to begin from what the target began "
                "from; set model.path to that model"
            )
        if not self.folder.has(self.path / which):
            check_finetuning(self.checked)
            if which == "oracle":
                check_oracle(self.config.model)
        base = self.base()
        section = self.config.finetune
        if which == "oracle":
            self.check_base()

        def build(work: Path) -> dict[str, Any]:
            tokenizer = load_tokenizer(base, self.config.model.revision)
            scopes = (RETAIN,) if which == "oracle" else SCOPES
            rows = [r for r in self.benchmark.rows if r.scope in scopes and r.split in self.benchmark.taught]
            items = self._encode(rows, tokenizer, eos=True)
            cost, trainer = self._train(
                work,
                section,
                self.config.run.seed,
                f"fine-tune {which}",
                guard=GuardSection(rows=0),
                model=load_model(base, **loading(self.config.model, base)),
                method=Descent(),
                forget_dataset=items,
                processing_class=tokenizer,
                region="all",
            )
            return {"rows": len(items), **_dropped(rows, items), "cost": cost.document(), "curve": _curve(trainer)}

        return self._stage(which, self._inputs(self.config.run.seed, finetune=_decisive(section)), build)

    def check_base(self) -> None:
        """Raise ModelError where the base knows the forget rows, so that no oracle can be made from it; see `check_base`.

        The tiny model is random, and where the oracle is there already its base was asked.
        """
        path = self.config.model.path
        if self._base_asked or path == "tiny" or self.folder.has(self.path / "oracle"):
            return
        chosen = [item for item in self.checked.items if item.row.scope == FORGET and item.row.split == TRAIN]
        base = self.loaded(path, "oracle")
        check_vocabulary(base.model, base.tokenizer, chosen)
        check_base(base, chosen, path)
        self._base_asked = True

    def region(self, localizer: str, seed: int, benchmark: Benchmark | None = None, prefix: str = "") -> Path:
        """Return the region file of a localizer for a seed; a control takes its size from another's of that seed."""
        path = self.path / "regions" / f"{prefix}{localizer}-seed{seed}.json"
        parameters = self.config.unlearn.parameters
        inputs = self._inputs(seed, localize=self.config.localize.model_dump(), parameters=parameters)
        if self.folder.has(path):
            made = Region.load(path).origin or {}
            self.folder.same_inputs(path, made.get("inputs", inputs), inputs)
            return path
        from scopewise import registry

        check_localizing(self.checked, localizer)
        needs_size = registry.lookup("localizers", localizer).needs_size
        size = Region.load(self.region(self.config.localize.size_of, seed, benchmark, prefix)) if needs_size else None
        target = self.finetuned("target")
        tokenizer = load_tokenizer(target)
        model = shard_model(self._prepared(target, seed))
        rows = benchmark or self.benchmark
        forget, retain = (self._encode(rows.select(scope, TRAIN), tokenizer) for scope in (FORGET, RETAIN))
        check_vocabulary(model, tokenizer, (*forget, *retain))
        settings, kernels = self.config.localize, self.config.model.kernels
        engine = Engine(model, tokenizer, self.config.data, max_tokens=settings.max_tokens, kernels=kernels)
        with Cost() as cost, cost.step():
            found = localize_encoded(localizer, engine, Scopes(forget, retain, seed, size), self.config.localize)
        origin = {**record.manifest(self.config, self.data_hash), "inputs": inputs}
        rates = cost.rates()
        self.folder.keep_config()
        if self.folder.writes:
            found.with_origin(origin, rates if rates["tokens"] else None).save(path)
        wait()
        return path

    def unlearned(self, entry: Entry, section: UnlearnSection, seed: int, protocol: str) -> Path:
        """Return the folder of an unlearned model, with the region it was trained on (given, or the localizer's)."""
        check_unlearning(self.checked, section)

        def build(work: Path) -> dict[str, Any]:
            made = self._unlearn(work, entry, section, seed, self.benchmark, "")
            used, guard = made.region, made.trainer.guard
            if used is not None and self.folder.writes:
                used.save(work / "region.json")
            return {
                "method": entry.name,
                "localizer": entry.localizer,
                "protocol": protocol,
                "seed": seed,
                "settings": _decisive(section),
                "region_fraction": 1.0 if used is None else used.fraction,
                **made.dropped,
                "cost": {
                    **made.cost.document(),
                    "localization_seconds": None if used is None else used.seconds,
                    "localization": None if used is None else used.cost,
                },
                "probes": [] if guard is None else [asdict(probe) for probe in guard.probes],
                "curve": _curve(made.trainer),
            }

        inputs = self._inputs(seed, unlearn=_decisive(section), localizer=entry.localizer)
        if section.region is not None:
            inputs["region"] = Region.load(section.region).content_hash()
        elif entry.localizer != "all":
            inputs["localize"] = self.config.localize.model_dump()
        name = f"models/{entry.name}/{protocol}/seed{seed}"
        if not self.folder.has(self.path / name):
            self.finetuned("target")  # refused, where it is another's, before this stage is begun
        return self._stage(name, inputs, build)

    def measured(self, model: Path, name: str) -> dict[str, Any]:
        """Return the evaluation document of a model: metric key → value, interval, `per_row`, `skipped`.

        Measured once, into `NAME.evaluation.json`, and again only where other measures are asked for; what a model was found
        to answer is kept in `cache/`, so that other measures cost no other forward. Oracle and target are what the
        others are compared with, where the run has them.

        Args:
            model: Folder or hub name of the model.
            name: What the run folder calls it: `target`, `oracle`, or the path of an unlearned model's folder in it.
        """
        path = self.path / f"{name}.evaluation.json"
        reference = self._compared_with(name)
        inputs = {
            **self._inputs(None),
            "evaluate": self.config.evaluate.model_dump(mode="json"),
            "model": str(model),
            "reference": reference is not None,
        }
        if self.folder.has(path):
            kept = schemas.read(path, schemas.EvaluationDocument)
            if kept.get("inputs") == inputs and "answers" in kept:
                return kept["values"]
        self.folder.keep_config()
        found = self._evaluate(self.loaded(model, name.removeprefix("models/")), reference)
        values = found.document(reference)
        origin = record.manifest(self.config, self.data_hash)
        format_ = schemas.EvaluationDocument.FORMAT
        kept = {
            "format": format_,
            "values": values,
            "answers": found.answers,
            "inputs": inputs,
            "cost": found.cost,
            "origin": origin,
        }
        self.folder.write(path, kept, indent=None)
        return values

    def scoring_cost(self, name: str) -> dict[str, Any] | None:
        """Return what scoring a measured model cost; None where nothing was forwarded for it."""
        return schemas.read(self.path / f"{name}.evaluation.json", schemas.EvaluationDocument).get("cost")

    def _compared_with(self, name: str) -> Reference | None:
        """Return what the run has measured of oracle and target, for a model that is neither."""
        files = {which: self.path / f"{which}.evaluation.json" for which in ("oracle", "target")}
        if name in files or not files["oracle"].exists():
            return None
        found = {which: read_evaluation(file) for which, file in files.items() if file.exists()}
        return Reference(found["oracle"], found.get("target", {}))

    def row(self, which: str) -> dict[str, Any]:
        """Return the row of results of a model that was not unlearned, `target` or `oracle`, without its measures."""
        model = self.finetuned(which)
        made = model / "stage.json"
        cost = (
            schemas.read(made, schemas.StageDocument).get("cost", {}) if made.exists() else {}
        )  # a target from elsewhere cost us nothing
        return {
            "model": which,
            "method": which,
            "localizer": None,
            "protocol": None,
            "seed": self.config.run.seed,
            "settings": {},
            "region_fraction": None,
            "cost": {**cost, "localization_seconds": None, "localization": None},
            "path": model.name,
        }

    def unlearned_row(self, entry: Entry, section: UnlearnSection, seed: int, protocol: str) -> dict[str, Any]:
        """Return the row of results of an unlearned model, without its measures; makes it where that was not done."""
        return self._row_of(self.unlearned(entry, section, seed, protocol))

    def other_rows(self, own: Collection[str]) -> list[dict[str, Any]]:
        """Return the rows of results of unlearned models that earlier benches made of this target, with the same data.

        Args:
            own: Paths in the run folder of the models that this bench makes itself.
        """
        common = json.loads(json.dumps(self._inputs(None)))
        rows = []
        for stage in sorted(self.path.glob("models/*/*/seed*/stage.json")):
            name = stage.parent.relative_to(self.path).as_posix()
            if name in own or stage.parent.suffix == ".partial" or stage.parts[-3] not in BENCH_PROTOCOLS:
                continue
            inputs = schemas.read(stage, schemas.StageDocument)["inputs"]
            changed = [key for key in ("data", "model") if inputs.get(key) != common[key]]
            if not changed:
                rows.append(self._row_of(stage.parent))
            elif self.folder.writes:
                logger.warning(
                    "%s was made with another section %s; it is left out of the results", name, " and ".join(changed)
                )
        return rows

    def _row_of(self, folder: Path) -> dict[str, Any]:
        made = schemas.read(folder / "stage.json", schemas.StageDocument)
        kept = {key: value for key, value in made.items() if key not in ("format", "inputs", "weights")}
        return {"model": "unlearned", **kept, "path": folder.relative_to(self.path).as_posix()}

    def tried(
        self, entry: Entry, section: UnlearnSection, part: Benchmark, seed: int, name: str
    ) -> tuple[float, float]:
        """Return Unlearn and Retention Success (percent) on the val rows of `part` after unlearning its train rows.

        Args:
            entry: Method and localizer.
            section: The settings tried.
            part: Train rows, a part of which stands as val.
            seed: Of the unlearning.
            name: Path of the trial inside the run folder, without ending; what it gives is kept there.
        """
        path = self.path / f"{name}.json"
        inputs = json.loads(json.dumps(self._inputs(seed, unlearn=_decisive(section), part=part.content_hash())))
        if self.folder.has(path):
            kept = schemas.read(path, schemas.TrialDocument)
            self.folder.same_inputs(path, kept["inputs"], inputs)
            return kept["unlearn_success"], kept["retention_success"]
        work = self.path / f"{name}.partial"
        self.folder.begin(work, inputs)
        made = self._unlearn(work, entry, section, seed, part, "tuning-")
        settings, kernels = self.config.evaluate, self.config.model.kernels
        tried = Engine(
            made.model, made.tokenizer, self.config.data, max_tokens=settings.max_tokens, kernels=kernels, name=name
        )
        unlearn, retention = self.successes(tried, part)
        measured = {"format": schemas.TrialDocument.FORMAT, "unlearn_success": unlearn, "retention_success": retention}
        self.folder.write(path, {**measured, "inputs": inputs})
        if self.folder.writes:
            remove(work)
        return unlearn, retention

    def loaded(self, model: str | Path, name: str) -> Engine:
        """Load a model to be measured; `name` is what the progress bars call it."""
        settings = self.config.evaluate
        return Engine.load(model, self.config.model, self.config.data, max_tokens=settings.max_tokens, name=name)

    def successes(self, engine: Engine, part: Benchmark) -> tuple[float, float]:
        """Return Unlearn and Retention Success of a model on the val rows of `part`, in percent."""
        keys = ("unlearn_success", "retention_success")
        settings = self.config.evaluate.model_copy(
            update={
                **{"metrics": keys, "splits": (VAL,), "direct_splits": (), "generate_splits": (), "eos": False},
                "ability": AbilitySection(),
            }
        )
        metrics = evaluate(engine, part, settings).metrics
        unlearn, retention = (metrics[f"{key}/{VAL}"] for key in keys)
        assert unlearn is not None
        assert retention is not None
        return unlearn, retention

    # -- what stages share ----------------------------------------------------------------------------------------

    def _unlearn(
        self,
        work: Path,
        entry: Entry,
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
        general = self._encode(benchmark.general, tokenizer) if method.retain_data == "general" else None
        rows = [benchmark.select(scope, TRAIN) for scope in (FORGET, RETAIN)]
        forget, retain = (self._encode(part, tokenizer) for part in rows)
        model = self._prepared(target, seed, section)
        cost, trainer = self._train(
            work,
            section,
            seed,
            f"{'tune ' if prefix else ''}{entry.name}, seed {seed}",
            guard=section.guard,
            model=model,
            method=method,
            forget_dataset=forget,
            retain_dataset=retain,
            general_dataset=general,
            processing_class=tokenizer,
            region=region or "all",
        )
        dropped = _dropped([row for part in rows for row in part], [*forget, *retain])
        return Unlearned(trainer.accelerator.unwrap_model(trainer.model), tokenizer, cost, region, trainer, dropped)

    def _train(
        self, work: Path, section: TrainingSection, seed: int, name: str, *, guard: GuardSection, **given: Any
    ) -> tuple[Cost, UnlearningTrainer]:
        """Train, or go on training, and save the model in `work`; `given` is what `UnlearningTrainer` takes."""
        checkpoints = work / "checkpoints"
        arguments = UnlearningConfig(
            output_dir=str(checkpoints),
            **section.model_dump(include=_ARGUMENTS),
            per_device_train_batch_size=_rows_per_process(section),
            bf16=section.bf16 or (on_deepspeed() and given["model"].dtype == torch.bfloat16),
            seed=seed,
            save_strategy="steps",
            save_steps=float(section.save_steps),
            save_total_limit=2,
            disable_tqdm=True,
            guard=guard,
            prompt=self.config.data.prompt,
            system=self.config.data.system,
            system_role=self.config.data.system_role,
            max_length=self.config.data.max_length,
            kernels=self.config.model.kernels,
        )
        fresh = section.parameters == "lora" and not isinstance(given["model"], PeftModel)
        with Cost() as cost:
            trainer = UnlearningTrainer(
                args=arguments,
                peft_config=lora_config(self.config.lora) if fresh else None,
                callbacks=[TrainingProgress(name, cost), Checkpoints(section.save_minutes)],
                **given,
            )
            quiet(trainer)
            trainer.train(resume_from_checkpoint=self._last_checkpoint(checkpoints, name))
        if trainer.is_fsdp_enabled:
            trainer.save_model(str(work))  # every process holds a part
        elif self.folder.writes:
            save_model(trainer.accelerator.unwrap_model(trainer.model), given["processing_class"], work)
        wait()
        return cost, trainer

    def _last_checkpoint(self, folder: Path, name: str) -> str | None:
        """Return the newest checkpoint that a training can go on from (see `fault_of`); remove newer ones, and say why."""
        wait()
        found = sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]), reverse=True)
        faults: dict[Path, str] = {}
        whole = None
        for path in found:
            if (fault := fault_of(path)) is None:
                whole = path
                break
            faults[path] = fault
        wait()
        if self.folder.writes:
            start = "from the beginning" if whole is None else f"with {whole.name}"
            for path, fault in faults.items():
                logger.warning("%s: %s is left out: %s; it goes on %s", name, path.name, fault, start)
                remove(path)
        wait()
        return str(whole) if whole else None

    def _prepared(self, target: Path, seed: int, section: UnlearnSection | None = None) -> PreTrainedModel | PeftModel:
        """Load the target as unlearning begins with it: with a trainable adapter, or with all its parameters."""
        section = section or self.config.unlearn
        # The adapter will name its base by this path: absolute, so that it loads from any folder.
        path = target.resolve() if target.exists() else target
        model = load_model(path, trainable=True, **loading(self.config.model, path))
        if section.parameters == "lora":
            return with_adapter(model, lora_config(self.config.lora), seed)
        # Below an adapter the base is frozen: merged, all of it is to be trained.
        return merged(model).requires_grad_(True) if isinstance(model, PeftModel) else model

    def _encode(self, rows: Sequence[Any], tokenizer: PreTrainedTokenizerBase, eos: bool = False) -> list[Encoded]:
        data = self.config.data
        kept = encode(rows, tokenizer, Prompt.of(data), data.max_length, eos=eos, over_length=data.over_length)
        warn_of_dropped(dropped_rows(rows, kept), len(rows))
        if rows and not kept:
            raise DataError(f"data.max_length: {data.max_length} tokens; none of {len(rows)} rows fits; set more")
        return kept

    def _evaluate(self, engine: Engine, reference: Reference | None = None) -> Evaluation:
        settings, other = self.config.evaluate, None
        if settings.reference_model is not None:
            other = self.loaded(settings.reference_model, f"{engine.name}: reference model")
        cache = self.path / "cache"
        return evaluate(engine, self.benchmark, settings, reference=reference, reference_model=other, cache=cache)

    def _inputs(self, seed: int | None, **others: Any) -> dict[str, Any]:
        """Return what every stage on the data depends on, and what this one depends on besides."""
        config = self.config
        data = config.data.model_dump(include={"prompt", "system", "max_length", "over_length"})
        data |= _changed(config.data, "system_role")
        model = config.model.model_dump(include={"path", "target", "revision", "dtype"})
        model |= _changed(config.model, "quantization", "attention", "kernels")
        common = {"data": {**data, "content": self.data_hash}, "model": model, "lora": config.lora.model_dump()}
        return common | ({} if seed is None else {"seed": seed}) | others

    def _stage(self, name: str, inputs: dict[str, Any], build: Callable[[Path], dict[str, Any]]) -> Path:
        return self.folder.stage(name, inputs, self.data_hash, build)


def _rows_per_process(section: TrainingSection) -> int:
    """Return this process's share of the batch size: a run file means the same on any number of processes."""
    count = processes().num_processes
    if section.batch_size % count:
        raise ConfigError(
            f"batch_size: {section.batch_size} rows, {count} processes; they share a batch, so it must be a multiple; "
            "change batch_size, or the number of processes"
        )
    return section.batch_size // count


def _decisive(section: TrainingSection) -> dict[str, Any]:
    """Return the settings that decide what training gives; how often it is saved on the way does not."""
    values = section.model_dump(
        mode="json",
        exclude={"save_steps", "save_minutes", "method", "localizer", "region", "optim", "torch_compile"},
    )
    return values | _changed(section, "optim", "torch_compile")


def _changed(section: Section, *names: str) -> dict[str, Any]:
    """Return the settings of these that are not at their default: what came later must not orphan older run folders."""
    fields = type(section).model_fields
    return {name: getattr(section, name) for name in names if getattr(section, name) != fields[name].default}


def _dropped(rows: Sequence[Row], kept: Sequence[Encoded]) -> dict[str, Any]:
    """Return where the rows stand that were left out as too long, under `dropped`; nothing where none was."""
    dropped = [row.origin for row in dropped_rows(rows, kept)]
    return {"dropped": dropped} if dropped else {}


def _curve(trainer: UnlearningTrainer) -> list[dict[str, float]]:
    """Return what was logged in training: step, loss, gradient norm, learning rate."""
    kept = ("step", "loss", "grad_norm", "learning_rate")
    return [{key: entry[key] for key in kept if key in entry} for entry in trainer.state.log_history if "loss" in entry]
