"""The jobs of a benchmark, in waves: jobs of one wave are independent, and depend only on earlier waves."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from scopewise.config import RunConfig
from scopewise.errors import UserError
from scopewise.localizers.base import localizer_of
from scopewise.run_file import parse_config
from scopewise.runs.bench import Bench, section_of
from scopewise.runs.pipeline import BenchEntry, Pipeline


@dataclass(frozen=True)
class Job:
    """One job of a benchmark.

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
    """A job with all that a process on another machine needs to run it."""

    config: dict[str, Any]
    job: Job
    folder: str
    bench: str | None = None  # `RunFolder.token` of its bench, which holds the folder's lock

    def __call__(self) -> str | None:
        """Run the job; return the sentence of a UserError, which a retry would not fix."""
        os.chdir(self.folder)
        try:
            pipeline = Pipeline(parse_config(self.config), resume=True, joins=self.bench)
            with pipeline.folder:
                do(pipeline, self.job)
        except UserError as error:
            return str(error)
        return None

    def checkpoint(self) -> Any:
        """Return the submission that resumes the task; submitit asks for it before the time of its job is over."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def waves(config: RunConfig) -> list[list[Job]]:
    """Return the jobs of a benchmark in waves; a region that takes its size from another comes after it."""
    bench = config.bench
    entries = [BenchEntry.parse(text) for text in bench.methods]
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
    searched = [entry for entry in entries if entry.searched] if "tuned" in bench.protocols else []
    found = [
        [Job("base")],
        [Job("target"), *([Job("oracle")] if bench.oracle else [])],
        list(regions[False]),
        list(regions[True]),
        [Job("search", entry.name) for entry in searched],
        models,
    ]
    return [wave for wave in found if wave]


def do(pipeline: Pipeline, job: Job) -> None:
    """Run a job in the run folder, unless its output is there already."""
    if job.what == "base":
        pipeline.base()
    elif job.what in ("target", "oracle"):
        pipeline.measurement.values(pipeline.finetuned(job.what), job.what)
        bench = pipeline.config.bench
        sections = [section_of(pipeline.config, BenchEntry.parse(e), p) for e in bench.methods for p in bench.protocols]
        if job.what == "target" and any(s.adapter == "fresh" for s in (pipeline.config.unlearn, *sections)):
            pipeline.merged()  # before the jobs that need it, which run side by side
    elif job.what == "region":
        pipeline.region(job.entry, job.seed)
    elif job.what == "search":
        Bench(pipeline).tuned(BenchEntry.parse(job.entry))
    else:
        entry = BenchEntry.parse(job.entry)
        section = section_of(pipeline.config, entry, "paper")
        if job.protocol == "tuned" and entry.searched:
            section = Bench(pipeline).tuned(entry)[1]  # reads the trials of the search job
        model = pipeline.unlearned(entry, section, job.seed, job.protocol)
        pipeline.measurement.values(model, model.relative_to(pipeline.path).as_posix())
