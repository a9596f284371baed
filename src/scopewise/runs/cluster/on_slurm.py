"""Jobs of a SLURM cluster, through submitit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scopewise.bars import bar
from scopewise.config import ClusterSection
from scopewise.errors import ConfigError, ResultError
from scopewise.files import make_folder
from scopewise.runs.cluster.jobs import Task


def run(waves: Sequence[Sequence[Task]], settings: ClusterSection, folder: Path) -> None:
    """Submit the tasks wave by wave and wait for them, with the retries of the settings.

    Args:
        waves: The tasks.
        settings: `bench.cluster`.
        folder: The run folder; scripts, logs and pickled tasks go to its folder `slurm/`.
    """
    executor = make_executor(settings, folder)
    for tasks in waves:
        left = list(tasks)
        with bar(len(tasks), f"slurm: {tasks[0].job.what}", "job") as progress:
            for attempt in range(settings.retries + 1):
                failed: list[tuple[Task, str]] = []
                for task, job in zip(left, submit(executor, left), strict=True):
                    error = job.exception()
                    if error is not None:
                        failed.append((task, str(error).strip().splitlines()[-1]))
                    elif (refused := job.result()) is not None:
                        raise ConfigError(f"{refused} (in {task.job})")
                    else:
                        progress.update(1)
                left = [task for task, _ in failed]
                if not left:
                    break
                if attempt == settings.retries:
                    raise ResultError(
                        f"bench: {failed[0][0].job} failed {attempt + 1} times ({failed[0][1]}); logs are in "
                        f"{folder}/slurm; fix the cause and add --resume"
                    )


def make_executor(settings: ClusterSection, folder: Path) -> Any:
    """Return submitit's executor with the resources of one job.

    Raises:
        ConfigError: submitit is not installed, or this machine has no SLURM.
    """
    try:
        import submitit
    except ImportError:
        raise ConfigError(
            "bench.engine: submitit is not installed; pip install 'scopewise[slurm]', or set local"
        ) from None
    make_folder(folder / "slurm")
    try:
        executor = submitit.AutoExecutor(folder=folder / "slurm", cluster=settings.scheduler)
    except RuntimeError as error:
        raise ConfigError(
            f"bench.engine: slurm, but this machine has no SLURM ({error}); start the bench on a login node, or "
            "set local"
        ) from None
    given: dict[str, Any] = {
        "name": "scopewise",
        "timeout_min": settings.minutes,
        "cpus_per_task": max(1, round(settings.cpus)),
        "gpus_per_node": round(settings.gpus),
        "slurm_partition": settings.partition,
        "slurm_account": settings.account,
        "slurm_setup": list(settings.setup) or None,
        "mem_gb": settings.memory_gigabytes,
    }
    executor.update_parameters(**{key: value for key, value in given.items() if value is not None})
    return executor


def submit(executor: Any, tasks: Sequence[Task]) -> list[Any]:
    """Submit tasks, on SLURM as one job array, and return submitit's jobs."""
    with executor.batch():
        return [executor.submit(task) for task in tasks]
