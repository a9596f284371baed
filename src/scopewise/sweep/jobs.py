"""What a bench is made of, as jobs: those of a wave do not depend on each other, and each depends on earlier waves alone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from scopewise.bench import Bench, section_of
from scopewise.config import RunConfig, parse_config
from scopewise.errors import UserError
from scopewise.localizers.base import localizer_of
from scopewise.pipeline import Entry, Pipeline


@dataclass(frozen=True)
class Job:
    """One piece of a bench.

    Attributes:
        what: `base`, `target`, `oracle`, `region`, `search` or `model`.
        entry: Bench entry, or the localizer of a region.
        seed: Of the unlearning.
        protocol: Of the unlearning.
    """

    what: str
    entry: str = ""
    seed: int = 0
    protocol: str = ""

    def __str__(self) -> str:
        if self.what == "model":
            return f"{self.entry}, {self.protocol}, seed {self.seed}"
        return f"{self.what} {self.entry}".strip() + (f", seed {self.seed}" if self.what == "region" else "")


@dataclass(frozen=True)
class Task:
    """A job with what a process elsewhere needs to do it."""

    config: dict[str, Any]
    job: Job
    folder: str
    bench: str | None = None  # `RunFolder.token` of the bench it is a job of, which holds the folder's lock

    def __call__(self) -> str | None:
        """Do it; return the sentence of a UserError, which trying again would not mend."""
        os.chdir(self.folder)
        try:
            pipeline = Pipeline(parse_config(self.config), resume=True, joins=self.bench)
            with pipeline.folder:
                do(pipeline, self.job)
        except UserError as error:
            return str(error)
        return None


def waves(config: RunConfig) -> list[list[Job]]:
    """Return the jobs of a bench in waves; a control's region comes after those it takes its size from."""
    bench = config.bench
    entries = [Entry.parse(text) for text in bench.methods]
    regions: dict[bool, dict[Job, None]] = {False: {}, True: {}}
    if config.unlearn.region is None:
        for entry in entries:
            if entry.localizer != "all":
                sized = localizer_of(entry.localizer, config.localize.localizer_args).takes_size_of
                for seed in bench.seeds:
                    regions[sized is not None][Job("region", entry.localizer, seed)] = None
                    if sized is not None:
                        regions[False][Job("region", sized, seed)] = None
    models = [
        Job("model", entry.name, seed, protocol)
        for protocol in bench.protocols
        for entry in entries
        for seed in bench.seeds
    ]
    searches = [Job("search", entry.name) for entry in entries] if "tuned" in bench.protocols else []
    found = [
        [Job("base")],
        [Job("target"), *([Job("oracle")] if bench.oracle else [])],
        list(regions[False]),
        list(regions[True]),
        searches,
        models,
    ]
    return [wave for wave in found if wave]


def do(pipeline: Pipeline, job: Job) -> None:
    """Make what a job is about, on the run folder; nothing where it is there already."""
    if job.what == "base":
        pipeline.base()
    elif job.what in ("target", "oracle"):
        pipeline.measurement.values(pipeline.finetuned(job.what), job.what)
    elif job.what == "region":
        pipeline.region(job.entry, job.seed)
    elif job.what == "search":
        Bench(pipeline).tuned(Entry.parse(job.entry))
    else:
        entry = Entry.parse(job.entry)
        section = section_of(pipeline.config, entry, "paper")
        if job.protocol == "tuned":
            section = Bench(pipeline).tuned(entry)[1]  # its trials are there: it reads them
        model = pipeline.unlearned(entry, section, job.seed, job.protocol)
        pipeline.measurement.values(model, model.relative_to(pipeline.path).as_posix())
