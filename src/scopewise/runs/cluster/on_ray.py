"""Jobs as tasks of a Ray cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scopewise.bars import bar
from scopewise.config import ClusterSection
from scopewise.errors import ConfigError, ResultError
from scopewise.runs.cluster.jobs import Task


def run(waves: Sequence[Sequence[Task]], settings: ClusterSection, folder: Path) -> None:
    """Run the tasks wave by wave, with the resources and retries of the settings.

    Args:
        waves: The tasks.
        settings: `bench.cluster`. Without `address`, a cluster on this machine is started, and stopped at the end.
        folder: The run folder.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise ConfigError("bench.engine: ray is not installed; pip install 'scopewise[ray]', or set local") from None
    ours = not ray.is_initialized()
    if ours:
        ray.init(address=settings.address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        remote = ray.remote(_run).options(
            num_cpus=settings.cpus,
            num_gpus=settings.gpus,
            memory=None if settings.memory_gigabytes is None else int(settings.memory_gigabytes * 1e9),
            max_retries=settings.retries,
            retry_exceptions=True,
        )
        for tasks in waves:
            _wave(ray, remote, tasks, settings)
    finally:
        if ours:
            ray.shutdown()


def _run(task: Task) -> str | None:
    return task()


def _wave(ray: Any, remote: Any, tasks: Sequence[Task], settings: ClusterSection) -> None:
    running = {remote.remote(task): task for task in tasks}
    with bar(len(tasks), f"ray: {tasks[0].job.what}", "job") as progress:
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            task = running.pop(done)
            try:
                refused = ray.get(done)
            except ray.exceptions.RayError as error:
                reason = str(error).strip().splitlines()[-1]
                raise ResultError(
                    f"bench: {task.job} failed {settings.retries + 1} times ({reason}); finished stages are kept; "
                    "fix the cause and add --resume"
                ) from error
            if refused is not None:
                raise ConfigError(f"{refused} (in {task.job})")
            progress.update(1)
