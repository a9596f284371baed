"""Run the stages of a benchmark on a Ray or SLURM cluster; `bench` then collects the results.

Every job writes to the run folder, which all machines must share, just as `bench` itself would. So the results file
does not depend on where its parts were computed, and a lost job is resumed from its last checkpoint.
"""

from __future__ import annotations

import os
from importlib import import_module

from scopewise.runs.cluster.jobs import Task, waves
from scopewise.runs.pipeline import Pipeline

ENGINES = {"ray": "scopewise.runs.cluster.on_ray", "slurm": "scopewise.runs.cluster.on_slurm"}


def distribute(pipeline: Pipeline) -> None:
    """Run all jobs of a benchmark on the engine that the run file names; do nothing for `local`.

    Raises:
        ConfigError: the engine's library is not installed, or a job rejected its settings.
        ModelError: the base model knows the forget rows.
        ResultError: a job failed after all its retries.
    """
    config = pipeline.config
    if config.bench.engine == "local":
        return
    if config.bench.oracle:
        pipeline.check_base()
    engine = import_module(ENGINES[config.bench.engine])
    document = config.model_dump(mode="json")
    # Only given settings are compared with an adapter's.
    document["lora"] = config.lora.model_dump(mode="json", exclude_unset=True)
    tasks = [[Task(document, job, os.getcwd(), pipeline.folder.token) for job in wave] for wave in waves(config)]  # noqa: PTH109
    engine.run(tasks, config.bench.cluster, pipeline.path)
