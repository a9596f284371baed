"""Runs the stages: base → target, oracle → localize → unlearn → evaluate → results. Each stage is done or not begun.

A stage writes into `NAME.partial` and is renamed when it is whole, so that a folder that exists is finished: after a
kill at any moment, `--resume` skips finished stages, goes on with the last complete checkpoint of the one that was
under way, and reaches the numbers of an undisturbed run, since every stage depends on its inputs and seed alone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from scopewise import record
from scopewise.config import RunConfig, TrainingSection, UnlearnSection, entry_name, split_entry
from scopewise.cost import Cost
from scopewise.data.load import load_benchmark
from scopewise.data.prompt import Encoded, Prompt, encode
from scopewise.data.rows import FORGET, RETAIN, TRAIN, VAL, Benchmark
from scopewise.errors import ConfigError
from scopewise.evaluation import Evaluation, evaluate
from scopewise.finetune import Descent
from scopewise.localizers.base import localize_encoded
from scopewise.methods.base import Method, make_method
from scopewise.models.adapters import lora_config, with_adapter
from scopewise.models.load import default_device, load_model, load_tokenizer, save_model
from scopewise.models.tiny import build_tiny, tokenizer_texts
from scopewise.progress import TrainingProgress, quiet
from scopewise.region import Region
from scopewise.report.table import markdown
from scopewise.train import UnlearningConfig, UnlearningTrainer
from scopewise.tune import Trial, grid, holdout

RESULTS_FORMAT = "scopewise-results/1"


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


class Pipeline:
    """The stages of one run, on one run folder.

    Args:
        config: The run file.
        resume: Go on with the run in the folder.
        overwrite: Begin it anew.
    """

    def __init__(self, config: RunConfig, *, resume: bool = False, overwrite: bool = False) -> None:
        self.config = config
        data = config.data
        # Data first: bad input must not leave an empty run behind.
        self.benchmark = load_benchmark(data.benchmark, data.path, data.domain, data.general)
        self.folder = record.RunFolder(config, resume=resume, overwrite=overwrite)
        self.path = self.folder.path

    # -- stages ---------------------------------------------------------------------------------------------------

    def base(self) -> str:
        """Return the path or name of the model before fine-tuning; makes the tiny one where it is asked for."""
        if self.config.model.path != "tiny":
            return self.config.model.path

        def build(work: Path) -> dict[str, Any]:
            model, tokenizer = build_tiny(
                tokenizer_texts(self.benchmark.rows), self.config.model.tiny, self.config.run.seed
            )
            save_model(model, tokenizer, work)
            return {"parameters": model.num_parameters()}

        return str(self._stage("base", build))

    def finetuned(self, which: str) -> Path:
        """Return the folder of the `target` (all rows of both scopes) or the `oracle` (the retain scope only)."""
        if which == "target" and self.config.model.target is not None:
            return Path(self.config.model.target)
        base = self.base()
        section = self.config.finetune

        def build(work: Path) -> dict[str, Any]:
            tokenizer = load_tokenizer(base, self.config.model.revision)
            rows = self.benchmark.select(RETAIN if which == "oracle" else None)
            items = self._encode(rows, tokenizer, eos=True)
            model = self._load(base)
            cost = self._train(
                work, model, tokenizer, Descent(), section, items, (), None, self.config.run.seed, f"fine-tune {which}"
            )
            return {"rows": len(items), "cost": cost.document()}

        return self._stage(which, build)

    def region(self, localizer: str, seed: int, benchmark: Benchmark | None = None, prefix: str = "") -> Path:
        """Return the region file of a localizer for a seed; a control takes its size from `gradient`'s of that seed."""
        path = self.path / "regions" / f"{prefix}{localizer}-seed{seed}.json"
        if path.exists():
            return path
        from scopewise import registry

        needs_size = registry.lookup("localizers", localizer).needs_size
        size = Region.load(self.region("gradient", seed, benchmark, prefix)) if needs_size else None
        target = self.finetuned("target")
        tokenizer = load_tokenizer(target)
        model = self._prepared(target, seed)
        rows = benchmark or self.benchmark
        found = localize_encoded(
            localizer,
            model,
            self._encode(rows.select(FORGET, TRAIN), tokenizer),
            self._encode(rows.select(RETAIN, TRAIN), tokenizer),
            self.config.localize,
            seed,
            size,
        )
        found.with_origin(self._manifest()).save(path)
        return path

    def unlearned(self, entry: Entry, section: UnlearnSection, seed: int, protocol: str) -> Path:
        """Return the folder of an unlearned model, with its evaluation and its region (given, or the localizer's)."""
        name = f"models/{entry.name}/{protocol}/seed{seed}"

        def build(work: Path) -> dict[str, Any]:
            model, tokenizer, cost, used = self._unlearn(work, entry, section, seed, self.benchmark, "")
            evaluation = self._evaluate(model, tokenizer, f"{entry.name}, seed {seed}")
            record.write_json(work / "evaluation.json", evaluation.document())
            if used is not None:
                used.save(work / "region.json")
            return {
                "method": entry.name,
                "localizer": entry.localizer,
                "protocol": protocol,
                "seed": seed,
                "settings": _settings(section, make_method(entry.method, **section.method_args)),
                "region_fraction": 1.0 if used is None else used.fraction,
                "metrics": evaluation.metrics,
                "skipped": {k: list(v.skipped) for k, v in evaluation.values.items() if v.skipped},
                "cost": {**cost.document(), "localization_seconds": None if used is None else used.seconds},
            }

        return self._stage(name, build)

    def evaluated(self, model: str | Path, which: str) -> dict[str, Any]:
        """Return the row of a model that was not unlearned (`target`, `oracle`), measured once."""
        path = self.path / f"{which}.evaluation.json"
        if not path.exists():
            tokenizer = load_tokenizer(model)
            evaluation = self._evaluate(self._on_device(load_model(model)), tokenizer, which)
            record.write_json(path, evaluation.document())
        document = record.read_json(path)
        made = Path(model) / "stage.json"
        cost = record.read_json(made)["cost"] if made.exists() else {}  # a target from elsewhere cost us nothing
        return {
            "model": which,
            "method": which,
            "localizer": None,
            "protocol": None,
            "seed": self.config.run.seed,
            "settings": {},
            "region_fraction": None,
            "metrics": {key: value["value"] for key, value in document.items()},
            "skipped": {key: value["skipped"] for key, value in document.items() if value["skipped"]},
            "cost": {**cost, "localization_seconds": None},
            "path": str(Path(model).name),
        }

    def bench(self) -> dict[str, Any]:
        """Run every method x seed under every protocol; write and return `results.json`, and write `table.md`.

        Both are written again after every model, with `complete: false` until the last: a long bench can be looked at.
        """
        bench = self.config.bench
        entries = [Entry.parse(text) for text in bench.methods]
        if self.config.unlearn.region is not None and len(entries) > 1:
            # One region for all would make a control a copy of what it controls.
            raise ConfigError(
                "unlearn.region: given for a bench of several methods; name localizers as method@localizer"
            )
        rows = [self.evaluated(self.finetuned(which), which) for which in ("target", "oracle")]
        tuning: dict[str, list[dict[str, Any]]] = {}
        results = self._write_results(rows, tuning, complete=False)
        for protocol in bench.protocols:
            for entry in entries:
                if protocol == "tuned":
                    trials = self.tuned(entry)
                    tuning[entry.name] = [t.document() for t in trials]
                    section = max(trials, key=lambda t: (t.score, -t.section.learning_rate)).section
                else:
                    section = self._section(entry, bench.paper.get(entry.method, {}))
                for seed in bench.seeds:
                    folder = self.unlearned(entry, section, seed, protocol)
                    row = record.read_json(folder / "stage.json")
                    rows.append({"model": "unlearned", **row, "path": str(folder.relative_to(self.path))})
                    last = (protocol, entry, seed) == (bench.protocols[-1], entries[-1], bench.seeds[-1])
                    results = self._write_results(rows, tuning, complete=last)
        return results

    def tuned(self, entry: Entry) -> list[Trial]:
        """Return the trials of an entry's grid: unlearned on a part of train, measured on the held-out rest of it."""
        tune = self.config.bench.tune
        part = holdout(self.benchmark, tune.holdout_fraction, tune.seed)
        trials = []
        sections = grid(self._section(entry, {}), make_method(entry.method), tune)
        settings = self.config.evaluate.model_copy(
            update={"metrics": ("average_success",), "splits": (VAL,), "direct_splits": ()}
        )
        for index, section in enumerate(sections):
            path = self.path / "tuning" / entry.name / f"trial{index}.json"
            if not path.exists():
                work = self.path / "tuning" / entry.name / f"trial{index}.partial"
                model, tokenizer, _, _ = self._unlearn(work, entry, section, tune.seed, part, "tuning-")
                label = f"tune {entry.name}, trial {index + 1} of {len(sections)}"
                measured = evaluate(model, tokenizer, part, settings, self.config.data, label)
                score = measured.metrics["average_success/val"]
                record.write_json(path, {"section": section.model_dump(mode="json"), "score": score})
                shutil.rmtree(work)
            document = record.read_json(path)
            trials.append(Trial(UnlearnSection.model_validate(document["section"]), document["score"]))
        return trials

    # -- what stages share ----------------------------------------------------------------------------------------

    def _unlearn(
        self,
        work: Path,
        entry: Entry,
        section: UnlearnSection,
        seed: int,
        benchmark: Benchmark,
        prefix: str,
    ) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase, Cost, Region | None]:
        target = self.finetuned("target")
        region = Region.load(section.region) if section.region is not None else None
        if region is None and entry.localizer != "all":
            region = Region.load(self.region(entry.localizer, seed, benchmark, prefix))
        tokenizer = load_tokenizer(target)
        method = make_method(entry.method, **section.method_args)
        forget = self._encode(benchmark.select(FORGET, TRAIN), tokenizer)
        kept = benchmark.general if method.retain_data == "general" else benchmark.select(RETAIN, TRAIN)
        retain = self._encode(kept, tokenizer) if method.retain != "none" else []
        model = self._prepared(target, seed, section)
        name = f"{'tune ' if prefix else ''}{entry.name}, seed {seed}"
        cost = self._train(work, model, tokenizer, method, section, forget, retain, region, seed, name)
        return model, tokenizer, cost, region

    def _train(
        self,
        work: Path,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        method: Method,
        section: TrainingSection,
        forget: Sequence[Encoded],
        retain: Sequence[Encoded],
        region: Region | None,
        seed: int,
        name: str,
    ) -> Cost:
        checkpoints = work / "checkpoints"
        arguments = UnlearningConfig(
            output_dir=str(checkpoints),
            learning_rate=section.learning_rate,
            num_train_epochs=section.epochs,
            per_device_train_batch_size=section.batch_size,
            gradient_accumulation_steps=section.gradient_accumulation_steps,
            lr_scheduler_type=section.scheduler,
            warmup_steps=section.warmup_ratio,
            weight_decay=section.weight_decay,
            max_grad_norm=section.max_grad_norm,
            bf16=section.bf16,
            activation_checkpointing=section.gradient_checkpointing,
            seed=seed,
            save_strategy="steps",
            save_steps=section.checkpoint_steps,
            save_total_limit=2,
            disable_tqdm=True,
        )
        with Cost() as cost:
            is_lora = section.parameters == "lora"
            trainer = UnlearningTrainer(
                model=model,
                method=method,
                args=arguments,
                forget_dataset=forget,
                retain_dataset=retain or None,
                general_dataset=retain if method.retain_data == "general" else None,
                processing_class=tokenizer,
                peft_config=lora_config(self.config.lora) if is_lora and not isinstance(model, PeftModel) else None,
                region=region or "all",
                callbacks=[TrainingProgress(name, cost)],
            )
            quiet(trainer)
            trainer.train(resume_from_checkpoint=_last_checkpoint(checkpoints))
        trained = trainer.accelerator.unwrap_model(trainer.model)
        save_model(trained, tokenizer, work)
        return cost

    def _prepared(self, target: Path, seed: int, section: UnlearnSection | None = None) -> PreTrainedModel | PeftModel:
        """Load the target as unlearning begins with it: with a trainable adapter, or with all its parameters."""
        section = section or self.config.unlearn
        # The adapter will name its base by this path: absolute, so that it loads from any folder.
        path = target.resolve() if target.exists() else target
        model = self._on_device(load_model(path, self.config.model.dtype, trainable=True))
        if section.parameters == "lora":
            return with_adapter(model, lora_config(self.config.lora), seed)
        return model.merge_and_unload() if isinstance(model, PeftModel) else model  # type: ignore[return-value]

    def _load(self, path: str) -> PreTrainedModel | PeftModel:
        return self._on_device(load_model(path, self.config.model.dtype, self.config.model.revision))

    def _on_device(self, model: PreTrainedModel | PeftModel) -> PreTrainedModel | PeftModel:
        return model.to(default_device())  # type: ignore[arg-type, return-value]

    def _encode(self, rows: Sequence[Any], tokenizer: PreTrainedTokenizerBase, eos: bool = False) -> list[Encoded]:
        data = self.config.data
        return encode(rows, tokenizer, Prompt(data.prompt), data.max_length, eos=eos, over_length=data.over_length)

    def _evaluate(
        self, model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, name: str
    ) -> Evaluation:
        return evaluate(model, tokenizer, self.benchmark, self.config.evaluate, self.config.data, name)

    def _section(self, entry: Entry, changes: Mapping[str, Any]) -> UnlearnSection:
        values = {**self.config.unlearn.model_dump(), **changes, "method": entry.method, "localizer": entry.localizer}
        return UnlearnSection.model_validate(values)

    def _write_results(
        self, rows: list[dict[str, Any]], tuning: dict[str, list[dict[str, Any]]], *, complete: bool
    ) -> dict[str, Any]:
        results = {
            "format": RESULTS_FORMAT,
            "complete": complete,
            "manifest": {**self._manifest(), "device": _device_name()},
            "config": self.config.model_dump(mode="json"),
            "rows": rows,
            "tuning": tuning,
        }
        record.write_json(self.path / "results.json", results)
        record.write_text(self.path / "table.md", markdown(results))
        return results

    def _manifest(self) -> dict[str, Any]:
        return record.manifest(self.config, self.benchmark.content_hash())

    def _stage(self, name: str, build: Callable[[Path], dict[str, Any]]) -> Path:
        final = self.path / name
        if not final.exists():
            work = final.with_name(f"{final.name}.partial")
            work.mkdir(parents=True, exist_ok=True)
            document = build(work)
            record.write_json(work / "stage.json", {**document, "origin": self._manifest()})
            shutil.rmtree(work / "checkpoints", ignore_errors=True)
            os.replace(work, final)
        return final


def _last_checkpoint(folder: Path) -> str | None:
    """Return the newest checkpoint that was written to its end (the trainer writes its state last)."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]), reverse=True)
    for path in found:
        if (path / "trainer_state.json").exists():
            return str(path)
        shutil.rmtree(path)
    return None


def _settings(section: UnlearnSection, method: Method) -> dict[str, Any]:
    kept = ("learning_rate", "epochs", "batch_size", "gradient_accumulation_steps", "parameters", "scheduler")
    weights = {"forget_weight": method.forget_weight, "retain_weight": method.retain_weight}
    return {key: getattr(section, key) for key in kept} | weights


def _device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else str(default_device())
