"""Training as a stage of a run: with the settings of a section of the run file, resumed from its last checkpoint."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from scopewise.config import EarlyStoppingSection, ExpandSection, RunConfig, TrainingSection
from scopewise.cost import Cost
from scopewise.errors import ConfigError
from scopewise.files import remove
from scopewise.models.adapters import lora_config
from scopewise.models.load import save_model
from scopewise.models.parallel.processes import on_deepspeed, processes, wait
from scopewise.runs.folder import RunFolder
from scopewise.training.arguments import UnlearningConfig
from scopewise.training.checkpoints import Checkpoints
from scopewise.training.progress import TrainingProgress, checkpoints, fault_of, quiet
from scopewise.training.trainer import UnlearningTrainer

logger = logging.getLogger("scopewise")

_ARGUMENTS = set(TrainingSection.model_fields) - {"parameters", "batch_size", "bf16", "save_steps", "save_minutes"}
"""Settings that are passed to `UnlearningConfig` under the same name."""


def train(
    folder: RunFolder,
    work: Path,
    section: TrainingSection,
    seed: int,
    name: str,
    *,
    early_stopping: EarlyStoppingSection,
    expand: ExpandSection | None = None,
    **given: Any,
) -> tuple[Cost, UnlearningTrainer]:
    """Train, from the last checkpoint if there is one, and save the model.

    Args:
        folder: The run folder.
        work: Folder of the stage in progress.
        section: Training settings.
        seed: Of the training.
        name: Label of the progress bar.
        early_stopping: Settings of early stopping.
        expand: Settings of self-questions and paraphrases; None for neither.
        **given: Arguments of `UnlearningTrainer`, including `model` and `processing_class`.

    Raises:
        ConfigError: the batch size is not divisible among the processes; or as `UnlearningTrainer`.
    """
    config, checkpoints = folder.config, work / "checkpoints"
    arguments = UnlearningConfig(
        output_dir=str(checkpoints),
        **section.model_dump(include=_ARGUMENTS),
        per_device_train_batch_size=_rows_per_process(section),
        bf16=section.bf16 or (on_deepspeed() and given["model"].dtype == torch.bfloat16),
        seed=seed,
        save_strategy="steps",
        save_steps=float(section.save_steps),
        save_total_limit=2,
        disable_tqdm=True,
        early_stopping=early_stopping,
        expand=expand or ExpandSection(),
        **_data_arguments(config),
    )
    fresh = section.parameters == "lora" and not isinstance(given["model"], PeftModel)
    with Cost() as cost:
        trainer = UnlearningTrainer(
            args=arguments,
            peft_config=lora_config(config.lora) if fresh else None,
            callbacks=[TrainingProgress(name, cost), Checkpoints(section.save_minutes)],
            **given,
        )
        quiet(trainer)
        trainer.train(resume_from_checkpoint=_last_checkpoint(folder, checkpoints, name))
    if trainer.is_fsdp_enabled:
        trainer.save_model(str(work))  # every process holds a shard
    elif folder.writes:
        save_model(trainer.accelerator.unwrap_model(trainer.model), given["processing_class"], work)
    wait()
    return cost, trainer


def _data_arguments(config: RunConfig) -> dict[str, Any]:
    data = config.data.model_dump(include={"prompt", "system", "system_role", "max_length"})
    return {**data, "kernels": config.model.kernels}


def _rows_per_process(section: TrainingSection) -> int:
    """Return the batch size per process; the run file gives the total, so that results do not depend on the number."""
    count = processes().num_processes
    if section.batch_size % count:
        raise ConfigError(
            f"batch_size: {section.batch_size} rows, {count} processes; the processes share a batch, so it must be "
            "a multiple of their number; change one of the two"
        )
    return section.batch_size // count


def _last_checkpoint(run: RunFolder, folder: Path, name: str) -> str | None:
    """Return the newest checkpoint to resume from (see `fault_of`); remove newer, broken ones with a warning."""
    wait()
    faults: dict[Path, str] = {}
    whole = None
    for path in checkpoints(folder):
        if (fault := fault_of(path)) is None:
            whole = path
            break
        faults[path] = fault
    wait()
    if run.writes:
        start = "from the beginning" if whole is None else f"with {whole.name}"
        for path, fault in faults.items():
            logger.warning("%s: %s is left out: %s; training continues %s", name, path.name, fault, start)
            remove(path)
    wait()
    return str(whole) if whole else None


def curve(trainer: UnlearningTrainer) -> list[dict[str, float | int]]:
    """Return the training log: step, loss, gradient norm, learning rate."""
    kept = ("step", "loss", "grad_norm", "learning_rate")
    return [{key: entry[key] for key in kept if key in entry} for entry in trainer.state.log_history if "loss" in entry]
