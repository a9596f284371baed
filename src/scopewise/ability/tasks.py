"""Load the lm-evaluation-harness tasks of a run, with data from the hub or from local files."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scopewise.ability.documents import LOCAL_TASKS, Document, documents
from scopewise.config import AbilitySection
from scopewise.errors import ConfigError, DataError
from scopewise.registry import nearest

_FOLDERS = {
    "mmlu": "mmlu/default",
    "arc_challenge": "arc",
    "truthfulqa_mc1": "truthfulqa",
    "truthfulqa_mc2": "truthfulqa",
    "social_iqa": "siqa",
    "race": "race",
    "wikitext": "wikitext",
}
"""Folders of the harness with the tasks that we name: reading only these takes a second, reading all takes ten."""


def need_harness() -> None:
    """Raise ConfigError if lm-evaluation-harness is not installed."""
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigError(
            "evaluate.ability: lm-evaluation-harness is not installed; install scopewise[ability] (pip install "
            "'scopewise[ability]'), or leave evaluate.ability.tasks empty"
        )


def load_tasks(settings: AbilitySection) -> Mapping[str, Sequence[Any]]:
    """Return the harness's tasks for each name in `settings.tasks`: one task, or the 57 subjects of MMLU.

    They are loaded once per process, so that a run can check them before training.

    Raises:
        ConfigError: lm-eval is not installed, has no such task, or a task has neither accuracy nor word perplexity.
        DataError: the hub does not answer, or the local folder lacks a file.
    """
    need_harness()
    limits = settings.limit if isinstance(settings.limit, dict) else {}
    for key, names in (("shots", settings.shots), ("limit", limits)):
        for name in names:
            if name not in settings.tasks:
                raise ConfigError(
                    f"evaluate.ability.{key}: {name!r} is not among evaluate.ability.tasks; add it, or remove it"
                )
    if settings.path is not None and not Path(settings.path).is_dir():
        raise DataError(f"evaluate.ability.path: {settings.path}: no such folder; name one with the tasks' files")
    for name in settings.tasks if settings.path is not None else ():
        if name not in LOCAL_TASKS:
            raise ConfigError(
                f"evaluate.ability.tasks: {name} cannot be read from evaluate.ability.path; that is for "
                f"{', '.join(LOCAL_TASKS)}; leave evaluate.ability.path empty to take it from the hub"
            )
    return _loaded(settings.tasks, settings.path, tuple(settings.shots.items()))


@functools.cache
def _loaded(names: tuple[str, ...], path: str | None, shots: tuple[tuple[str, int], ...]) -> dict[str, list[Any]]:
    import lm_eval.tasks

    with quiet():
        root = Path(lm_eval.tasks.__file__).parent
        if all(name in _FOLDERS for name in names):
            folders = sorted({str(root / _FOLDERS[name]) for name in names})
            manager = lm_eval.tasks.TaskManager(include_path=folders, include_defaults=False)
        else:
            manager = lm_eval.tasks.TaskManager()
        found = {}
        for name in names:
            if name not in manager.all_tasks:
                raise ConfigError(
                    f"evaluate.ability.tasks: lm-eval has no task {name!r}; `lm_eval ls tasks` lists them."
                    f"{nearest(name, manager.all_tasks)}"
                )
            changes = {"num_fewshot": dict(shots)[name]} if name in dict(shots) else {}
            found[name] = _hub(manager, name, changes) if path is None else _local(manager, name, path, changes)
            for task in found[name]:
                _prepare(task, name)
    return found


def _prepare(task: Any, name: str) -> None:
    if not {"acc", "word_perplexity"} & set(task.aggregation()):
        raise ConfigError(
            f"evaluate.ability.tasks: {name} is measured neither by accuracy nor by word perplexity; run it with `lm_eval`, or "
            "leave it out"
        )
    if task.config.num_fewshot is None:
        task.set_config("num_fewshot", 0)
    task.set_fewshot_seed(seed=1234)  # the harness's default


def _hub(manager: Any, name: str, changes: Mapping[str, Any]) -> list[Any]:
    try:
        return _tasks(manager, {"group" if name in manager.all_groups else "task": name, **_mend(name), **changes})
    except Exception as error:  # the hub client raises many classes, which all mean the same to the user
        known = LOCAL_TASKS.get(name)
        dataset = known.dataset if known else "its dataset"
        here = f", or save it as {known.lines} in a folder and set evaluate.ability.path" if known else ""
        raise DataError(
            f"evaluate.ability.tasks: {name}: the hub failed with {type(error).__name__}; load {dataset} on a "
            f"machine with a connection and copy the hub's cache folder here (HF_HOME){here}"
        ) from error


def _local(manager: Any, name: str, path: str, changes: Mapping[str, Any]) -> list[Any]:
    if changes and name != "mmlu":
        raise ConfigError(
            f"evaluate.ability.shots: {name} has no examples in local files; leave it out of shots, or take the hub"
        )
    asked, found = documents(name, path), []
    if name == "mmlu":
        for subject in dict.fromkeys(d["subject"] for d in asked):
            own = [d for d in asked if d["subject"] == subject]
            examples = [d for d in own if d.get("split") == "dev"]
            if dict(changes).get("num_fewshot", 0) > len(examples):
                raise DataError(
                    f"evaluate.ability.shots: mmlu needs examples; {path} has {len(examples)} of {subject}; put "
                    "SUBJECT_dev.csv into mmlu/dev, or ask for fewer shots"
                )
            splits = {"test": [d for d in own if d.get("split") != "dev"], "dev": examples or own[:1]}
            if splits["test"]:
                found += _tasks(manager, {"task": f"mmlu_{subject}", **_data(splits), **changes})
        return found
    known = LOCAL_TASKS[name]
    splits = {known.split: asked}
    unused = {f"{split}_split": None for split in ("training", "validation", "test") if split != known.split}
    return _tasks(manager, {"task": name, **_mend(name), **unused, "fewshot_split": None, **_data(splits)})


def _tasks(manager: Any, spec: Mapping[str, Any]) -> list[Any]:
    """Build a task, or the tasks of a group; the harness applies changes to a named task only within a group."""
    return list(manager.load([{"group": "scopewise", "task": [dict(spec)]}])["tasks"].values())


def _data(splits: Mapping[str, Sequence[Document]]) -> dict[str, Any]:
    from datasets import Dataset

    made = {split: Dataset.from_list([dict(d) for d in rows]) for split, rows in splits.items()}
    return {"custom_dataset": lambda **_: made, "dataset_path": "local", "dataset_name": None}


def _mend(name: str) -> dict[str, Any]:
    """Return our changes to the harness's task."""
    return {"process_results": true_share} if name == "truthfulqa_mc2" else {}


def true_share(document: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """Return the share of probability on the true answers of a TruthfulQA question, 0-1.

    Formula: softmax over the answers' log-probabilities, summed over the true ones. The harness exponentiates first, so
    a collapsed model has only zeros and a share of 0/0. Otherwise both are the same.
    """
    log_p = np.array([log_p for log_p, _ in results], dtype=float)
    share = np.exp(log_p - log_p.max())
    right = np.array(document["mc2_targets"]["labels"]) == 1
    return {"acc": float(share[right].sum() / share.sum())}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the harness within a block, except for errors: it draws a progress bar per MMLU subject, 57 in all."""
    import datasets
    import lm_eval.api.task as module

    logger, bars = logging.getLogger("lm_eval"), datasets.is_progress_bar_enabled()
    level, tqdm = logger.level, module.tqdm
    logger.setLevel(logging.ERROR)
    module.tqdm = functools.partial(tqdm, disable=True)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        module.tqdm = tqdm
        logger.setLevel(level)
        if bars:
            datasets.enable_progress_bars()
