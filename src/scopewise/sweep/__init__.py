"""A bench's stages made elsewhere: as tasks of a Ray cluster, or as jobs of SLURM; the bench then puts the results together.

Every job works on the run folder, which all machines have to see, and leaves there what the bench itself would have made. So
the results file is the same whoever made its parts, and a job that is lost is made again from its last checkpoint.
"""

from __future__ import annotations

import os
from importlib import import_module

from scopewise.pipeline import Pipeline
from scopewise.sweep.jobs import Task, waves

ENGINES = {"ray": "scopewise.sweep.on_ray", "slurm": "scopewise.sweep.on_slurm"}


def distribute(pipeline: Pipeline) -> None:
    """Make everything that the bench of a run needs, by the engine that its run file names; `local` makes nothing.

    Raises:
        ConfigError: the engine's library is not installed, or a job refused its settings.
        ModelError: the base knows the forget rows.
        ResultError: a job failed as often as it may.
    """
    config = pipeline.config
    if config.bench.engine == "local":
        return
    if config.bench.oracle:
        pipeline.check_base()
    engine = import_module(ENGINES[config.bench.engine])
    document = config.model_dump(mode="json")
    document["lora"] = config.lora.model_dump(
        mode="json", exclude_unset=True
    )  # what is given is compared with an adapter
    tasks = [[Task(document, job, os.getcwd(), pipeline.folder.token) for job in wave] for wave in waves(config)]  # noqa: PTH109
    engine.run(tasks, config.bench.cluster, pipeline.path)
