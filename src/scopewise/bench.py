"""The bench: every method x seed under every protocol, beside target and oracle, into `results.json` and `table.md`."""

from __future__ import annotations

from typing import Any

import torch

from scopewise import record
from scopewise.config import RunConfig, UnlearnSection
from scopewise.errors import ConfigError
from scopewise.methods.base import make_method
from scopewise.models.load import default_device
from scopewise.pipeline import Entry, Pipeline
from scopewise.report.table import markdown
from scopewise.tune import Trial, grid, holdout

RESULTS_FORMAT = "scopewise-results/1"


def bench(pipeline: Pipeline) -> dict[str, Any]:
    """Run the bench of a run file; write and return `results.json`, and write `table.md`.

    Until the last model is measured, what is known stands in `results.partial.json`: a long bench can be looked at, and
    the results of an earlier one stay as they are until they are complete again.

    Raises:
        ConfigError: as `plan`.
    """
    settings = pipeline.config.bench
    plan(pipeline.config)
    entries = [Entry.parse(text) for text in settings.methods]
    rows = [pipeline.row(which) for which in (("target", "oracle") if settings.oracle else ("target",))]
    tuning: dict[str, list[dict[str, Any]]] = {}
    results = _write(pipeline, rows, tuning, complete=False)
    for protocol in settings.protocols:
        for entry in entries:
            if protocol == "tuned":
                trials = tuned(pipeline, entry)
                tuning[entry.name] = [trial.document() for trial in trials]
                section = max(trials, key=lambda t: (t.score, -t.section.learning_rate)).section
            else:
                section = section_of(pipeline.config, entry, "paper")
            for seed in settings.seeds:
                rows.append(pipeline.unlearned_row(entry, section, seed, protocol))
                last = (protocol, entry, seed) == (settings.protocols[-1], entries[-1], settings.seeds[-1])
                results = _write(pipeline, rows, tuning, complete=last)
    return results


def plan(config: RunConfig) -> None:
    """Raise ConfigError for anything wrong with a bench that can be known before it begins."""
    entries = [Entry.parse(text) for text in config.bench.methods]
    if config.unlearn.region is not None and len(entries) > 1:
        # One region for all would make a control a copy of what it controls.
        raise ConfigError("unlearn.region: given for a bench of several methods; name localizers as method@localizer")
    if config.bench.oracle and config.model.target is not None and config.model.path == "tiny":
        raise ConfigError(
            "model.path: 'tiny', while model.target is another model; the oracle has to begin from what the target began "
            "from; set model.path to that model, or bench.oracle=false to go without"
        )
    for protocol in config.bench.protocols:
        for entry in entries:
            section = section_of(config, entry, protocol)
            try:
                method = make_method(entry.method, **section.method_args)
            except ConfigError as error:
                raise ConfigError(
                    f"{error} (method {entry.method}; what one method of a bench alone takes stands under "
                    f"bench.settings.{entry.method}.method_args)"
                ) from None
            if protocol == "tuned":
                grid(section, method, config.bench.tune)


def section_of(config: RunConfig, entry: Entry, protocol: str) -> UnlearnSection:
    """Return the settings of an entry under a protocol, before any search."""
    changes = {**config.bench.settings.get(entry.method, {})}
    if protocol == "paper":
        changes |= config.bench.paper.get(entry.method, {})
    values = {**config.unlearn.model_dump(), **changes, "method": entry.method, "localizer": entry.localizer}
    return UnlearnSection.model_validate(values)


def tuned(pipeline: Pipeline, entry: Entry) -> list[Trial]:
    """Return the trials of an entry's grid: unlearned on a part of train, measured on the held-out rest of it."""
    tune = pipeline.config.bench.tune
    part = holdout(pipeline.benchmark, tune.holdout_fraction, tune.seed)
    section = section_of(pipeline.config, entry, "tuned")
    sections = grid(section, make_method(entry.method, **section.method_args), tune)
    return [
        Trial(section, pipeline.tried(entry, section, part, tune.seed, f"tuning/{entry.name}/trial{index}"))
        for index, section in enumerate(sections)
    ]


def _write(
    pipeline: Pipeline, rows: list[dict[str, Any]], tuning: dict[str, list[dict[str, Any]]], *, complete: bool
) -> dict[str, Any]:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else str(default_device())
    results = {
        "format": RESULTS_FORMAT,
        "complete": complete,
        "manifest": {**record.manifest(pipeline.config, pipeline.data_hash), "device": device},
        "config": pipeline.config.model_dump(mode="json"),
        "rows": rows,
        "tuning": tuning,
    }
    partial = pipeline.path / "results.partial.json"
    if not complete:
        record.write_json(partial, results)
        return results
    record.write_json(pipeline.path / "results.json", results)
    record.write_text(pipeline.path / "table.md", markdown(results))
    partial.unlink(missing_ok=True)
    return results
