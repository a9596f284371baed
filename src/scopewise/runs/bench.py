"""The benchmark: every method x seed x protocol, with target and oracle; writes `results.json` and `table.md`."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import torch

from scopewise import schemas
from scopewise.allocator import release_memory
from scopewise.bars import showing
from scopewise.config import RunConfig, UnlearnSection
from scopewise.data.rows import FORGET, RETAIN, SCOPES, TRAIN
from scopewise.errors import ConfigError
from scopewise.eta import Part, Whole, training_cost
from scopewise.files import write_json, write_text
from scopewise.localizers.base import check_arguments
from scopewise.models.parallel.processes import default_device
from scopewise.recipes import RECIPES
from scopewise.record import manifest
from scopewise.registry import EXACT, split_method
from scopewise.report.columns import recorded
from scopewise.report.comparison import compared
from scopewise.report.row_values import FILE, RowValues, write_row_values
from scopewise.report.table import markdown, untaught
from scopewise.runs.checks import Checked, check_finetuning, check_oracle, check_unlearning
from scopewise.runs.pipeline import BenchEntry, Pipeline
from scopewise.runs.result_rows import finetuned_row, other_rows, unlearned_row
from scopewise.runs.stages import unlearned_name
from scopewise.runs.tune import EXTENSION, Objectives, Trial, best, forgotten, holdout, search, space

logger = logging.getLogger("scopewise")
_GENERATED = 16
"""Cost of a row whose answer is generated, over that of one that is scored. Measured on the demo, as `_UNLEARNED`."""
_UNLEARNED = 1.25
"""Cost of an unlearning over that of a fine-tuning with as many steps: it looks at held-out rows in between."""


class Bench:
    """Runs the benchmark of a run file.

    Until the last model is evaluated, results go to `results.partial.json`, so that a long run can be watched, and
    earlier results are replaced only by complete ones. Models of other methods, protocols and seeds from earlier
    benchmarks in the folder stay in the results, evaluated with the same metrics.

    Args:
        pipeline: The stages in their run folder.

    Raises:
        ConfigError: as `plan`.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        plan(pipeline.checked)
        self.pipeline = pipeline
        self.entries = [BenchEntry.parse(text) for text in pipeline.config.bench.methods]
        self._rows: list[dict[str, Any]] = []
        self._values: list[Mapping[str, Any]] = []  # evaluation document of each row
        self._row_values = RowValues(pipeline.config.run.seed)
        self._tuning: dict[str, list[dict[str, Any]]] = {}
        self.whole = Whole(self._parts())

    def run(self) -> dict[str, Any]:
        """Make and evaluate all models; write `table.md`, and write and return `results.json`."""
        with showing(self.whole):
            return self._run()

    def _run(self) -> dict[str, Any]:
        settings = self.pipeline.config.bench
        if settings.oracle:
            self.pipeline.check_base()  # before the target is trained
        for which in ("target", "oracle") if settings.oracle else ("target",):
            with self._doing(which):
                model = self.pipeline.finetuned(which)
            self._add(finetuned_row(which, model, self.pipeline.config.run.seed), model, which)
        results = self._write(complete=False)
        if (warning := untaught(results)) is not None and self.pipeline.folder.writes:
            logger.warning(warning)
        every = product(settings.protocols, self.entries, settings.seeds)
        own = [unlearned_name(entry.name, protocol, seed) for protocol, entry, seed in every]
        others = other_rows(self.pipeline.folder, self.pipeline.data_hash, own)
        self._tuning = self._earlier_tuning({row["method"] for row in others if row["protocol"] == "tuned"})
        for row in others:
            self._add(row, self.pipeline.path / row["path"], row["path"])
        for protocol in settings.protocols:
            for entry in self.entries:
                section = section_of(self.pipeline.config, entry, "paper")
                if protocol == "tuned" and entry.searched:
                    trials, section = self.tuned(entry)
                    self._tuning[entry.name] = [
                        {**trial.document(), "chosen": trial.section == section} for trial in trials
                    ]
                for seed in settings.seeds:
                    with self._doing(unlearned_name(entry.name, protocol, seed)):
                        model = self.pipeline.unlearned(entry, section, seed, protocol)
                    row = unlearned_row(self.pipeline.path, model)
                    self._add(row, model, row["path"])
                    last = (protocol, entry, seed) == (settings.protocols[-1], self.entries[-1], settings.seeds[-1])
                    results = self._write(complete=last)
        return results

    def tuned(self, entry: BenchEntry) -> tuple[list[Trial], UnlearnSection]:
        """Return an entry's trials (unlearned on part of train, evaluated on the rest) and the best settings."""
        pipeline, tune = self.pipeline, self.pipeline.config.bench.tune
        part = holdout(pipeline.benchmark, tune)

        def name(number: int) -> str:
            return f"tuning/{entry.name}/trial{number}"

        def measure(number: int, section: UnlearnSection) -> Objectives:
            with self._doing(name(number)):
                return pipeline.trial(entry, section, part, tune.seed, name(number))

        def extended(number: int, learning_rates: tuple[float, float]) -> None:
            if pipeline.folder.writes and not pipeline.folder.has(
                pipeline.path / f"{name(number)}.json"
            ):  # the warning was given already
                logger.warning(
                    "tune %s: nothing was forgotten in %d trials; learning rates up to %.3g are tried next, instead of %.3g",
                    *(entry.name, number, learning_rates[1], learning_rates[1] / EXTENSION),
                )

        target = pipeline.held_out("target", part)
        trials = search(section_of(pipeline.config, entry, "tuned"), tune, measure, target, extended)
        if pipeline.folder.writes and not forgotten(trials, target):
            logger.warning("tune %s: nothing was forgotten in any of its %d trials", entry.name, len(trials))
        return trials, best(trials, pipeline.held_out("oracle", part) if tune.choose == "oracle" else None).section

    def _earlier_tuning(self, methods: Collection[str]) -> dict[str, Any]:
        """Return the trials of methods that only an earlier benchmark searched, from its results."""
        path = self.pipeline.path / "results.json"
        earlier = schemas.read(path, schemas.ResultsDocument).get("tuning", {}) if path.exists() else {}
        return {method: trials for method, trials in earlier.items() if method in methods}

    def _add(self, row: dict[str, Any], folder: Path, name: str) -> None:
        with self._doing(f"evaluate {name}"):
            values = self.pipeline.measurement.values(folder, name)
        measures = {
            "metrics": {key: value["value"] for key, value in values.items()},
            "skipped": {key: value["skipped"] for key, value in values.items() if value["skipped"]},
        }
        cost = {**row["cost"], "scoring": self.pipeline.measurement.cost(name)}
        self._rows.append({**row, "cost": cost, **measures})
        self._values.append(values)
        self._row_values.add(row, values, self.pipeline.measurement.answers(name))

    @contextmanager
    def _doing(self, name: str) -> Iterator[None]:
        """Do a part of the benchmark, and release its memory."""
        number = next((i for i, part in enumerate(self._planned, start=1) if part.name == name), None)
        self.whole.call(f"{number}/{len(self._planned)} {name}" if number else name)
        try:
            with self.whole.part(name):
                yield
        finally:
            release_memory()

    def _parts(self) -> list[Part]:
        """Return what has to be done, in order; what is there already costs nothing."""
        pipeline, settings = self.pipeline, self.pipeline.config.bench
        rows = pipeline.benchmark.rows
        config, evaluate = pipeline.config, pipeline.config.evaluate
        asked = [*evaluate.splits, *evaluate.direct_splits, *(_GENERATED * evaluate.generate_splits)]
        scored = float(sum(row.split == split for row in rows for split in asked))
        found = []

        def add(name: str, kinds: tuple[str, ...], cost: float, there: Path) -> None:
            found.append(Part(name, kinds, 0.0 if pipeline.folder.has(there) else cost))

        def model(name: str, kinds: tuple[str, ...], cost: float) -> None:
            add(name, kinds, cost, pipeline.path / name)
            add(f"evaluate {name}", ("evaluate",), scored, pipeline.path / f"{name}.evaluation.json")

        def taught(scopes: Collection[str]) -> float:
            known = sum(row.scope in scopes and row.split in pipeline.benchmark.taught for row in rows)
            return training_cost(known, config.finetune.num_train_epochs, config.finetune.batch_size)

        def unlearned(epochs: float, batch_size: int) -> float:
            return _UNLEARNED * training_cost(2 * forget, epochs, batch_size)

        given = {"target": config.model.target, "oracle": config.model.oracle}
        for which in ("target", "oracle") if settings.oracle else ("target",):
            scopes = SCOPES if which == "target" else (RETAIN,)
            model(which, ("finetune", "train"), taught(scopes) if given[which] is None else 0.0)
        forget = len(pipeline.benchmark.select(FORGET, TRAIN))
        for protocol, entry in product(settings.protocols, self.entries):
            kinds = (entry.name, "unlearn", "train")
            section = section_of(config, entry, "paper")
            if protocol == "tuned" and entry.searched:
                epochs = math.sqrt(math.prod(settings.tune.num_train_epochs))
                for number in range(settings.tune.trials):
                    name = f"tuning/{entry.name}/trial{number}"
                    add(name, kinds, unlearned(epochs, section.batch_size), pipeline.path / f"{name}.json")
            own = unlearned(section.num_train_epochs, section.batch_size)
            cost = taught((RETAIN,)) if entry.method in EXACT else own
            for seed in settings.seeds:
                model(unlearned_name(entry.name, protocol, seed), kinds, cost)
        self._planned = found
        return found

    def _write(self, *, complete: bool) -> dict[str, Any]:
        path, config = self.pipeline.path, self.pipeline.config
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else str(default_device())
        row_values = self._row_values.document()
        results = {
            "format": schemas.ResultsDocument.FORMAT,
            "complete": complete,
            "manifest": {**manifest(config, self.pipeline.data_hash), "device": device},
            "config": config.model_dump(mode="json"),
            "rows": self._rows,
            "columns": recorded(self._values),
            **compared(row_values),
            "tuning": self._tuning,
        }
        partial_results = path / "results.partial.json"
        if not self.pipeline.folder.writes:
            return results
        if not complete:
            write_json(partial_results, results)
            return results
        write_row_values(path / FILE, row_values)
        write_json(path / "results.json", results)
        write_text(path / "table.md", markdown(results))
        partial_results.unlink(missing_ok=True)
        return results


def plan(checked: Checked, localizers: Collection[str] = ()) -> None:
    """Check a benchmark before it starts. Raises ConfigError with the first error.

    Args:
        checked: The run.
        localizers: Further localizers that `localize.localizer_args` may be for.
    """
    config = checked.config
    entries = [BenchEntry.parse(text) for text in config.bench.methods]
    if config.unlearn.region is None:
        check_arguments([*localizers, *(entry.localizer for entry in entries)], config.localize.localizer_args)
    if config.unlearn.region is not None and len(entries) > 1:
        # With one region for all, a random control would have the region that it is compared with.
        raise ConfigError("unlearn.region: given for a bench of several methods; name localizers as method@localizer")
    if config.bench.oracle:
        check_oracle(checked)
        if config.model.oracle is None:
            check_finetuning(checked)
    if config.bench.tune.choose == "oracle" and not config.bench.oracle:
        raise ConfigError("bench.tune.choose: 'oracle', with bench.oracle=false; choose 'average'")
    for protocol in config.bench.protocols:
        for entry in entries:
            section = section_of(config, entry, protocol)
            try:
                method = check_unlearning(checked, section)
                if protocol == "tuned" and entry.searched:
                    space(entry.method, method, config.bench.tune)
            except ConfigError as error:
                raise ConfigError(
                    f"{error} (method {entry.method}; for settings of a single method of a bench, use "
                    f"bench.settings.{entry.method}.method_args)"
                ) from None


def section_of(config: RunConfig, entry: BenchEntry, protocol: str) -> UnlearnSection:
    """Return the settings of an entry in a protocol, before any search."""
    recipe = RECIPES.get(entry.name)
    # The method alone, then with its wrappers. A recipe has only settings of its own.
    names = dict.fromkeys((split_method(entry.method)[0], entry.method) if recipe is None else (entry.name,))
    by_protocol = (config.bench.settings, config.bench.paper) if protocol == "paper" else (config.bench.settings,)
    changes: dict[str, Any] = {} if recipe is None else recipe.settings(config.finetune)
    for settings in by_protocol:
        for name in names:
            changes |= settings.get(name, {})
    if entry.method in EXACT:
        if changes:
            raise ConfigError(f"bench.settings.{entry.method}: given; it has the settings of 'finetune'; change those")
        own = config.unlearn.method == entry.method  # otherwise they are those of the other methods
        method_args = config.unlearn.method_args if own else {}
        return UnlearnSection(method=entry.method, localizer=entry.localizer, method_args=method_args)
    values = {**config.unlearn.model_dump(), **changes, "method": entry.method, "localizer": entry.localizer}
    wrappers = split_method(entry.method)[1]
    values["wrapper_args"] = {name: given for name, given in values["wrapper_args"].items() if name in wrappers}
    return UnlearnSection.model_validate(values)
