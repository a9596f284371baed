"""The progress bar of training: on stderr, with the loss, and the time of every step for the record."""

from __future__ import annotations

import contextlib
import zipfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from tqdm import tqdm
from transformers import PrinterCallback, Trainer, TrainerCallback

from scopewise import schemas
from scopewise.bars import bar
from scopewise.cost import Cost
from scopewise.errors import ResultError
from scopewise.files import seal, write_json


class TrainingProgress(TrainerCallback):
    """One bar per training; the trainer's own would print logs to stdout, where results belong."""

    def __init__(self, name: str, cost: Cost) -> None:
        self.name = name
        self.cost = cost
        self.bar: tqdm | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar at the step that a resumed training goes on from, and count its cost on from there."""
        kept = cost_file(_checkpoint(args, state))
        if state.global_step and kept.exists():
            self.cost.go_on_from(schemas.read(kept, schemas.CostDocument))
        first = state.global_step
        self.bar = bar(state.max_steps, self.name, "step", initial=first, disable=not state.is_world_process_zero)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin to measure the step."""
        self._step = contextlib.ExitStack()
        self._step.enter_context(self.cost.step())

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End measuring the step."""
        self._step.close()
        assert self.bar is not None
        self.bar.update(1)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put the cost so far beside the checkpoint."""
        if state.is_world_process_zero:
            seal(_checkpoint(args, state))
            kept = {"format": schemas.CostDocument.FORMAT, **self.cost.so_far()}
            write_json(cost_file(_checkpoint(args, state)), kept)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Show the loss."""
        if self.bar is not None and logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()


def cost_file(checkpoint: Path) -> Path:
    """Return the file that holds the cost up to a checkpoint; the last one that is written of it."""
    return checkpoint / "cost.json"


def is_whole(checkpoint: Path) -> bool:
    """Return whether a checkpoint was written to its end, by this version, and can be read."""
    files: dict[str, type[schemas.Document]] = {
        "cost.json": schemas.CostDocument,
        "unlearning_state.json": schemas.StateDocument,
        "probes.json": schemas.ProbesDocument,
    }
    try:
        for name, schema in files.items():
            if (checkpoint / name).exists() or name == "cost.json":
                found = schemas.read(checkpoint / name, schema)
                if "format" not in found:  # of a version whose state was another
                    return False
        for tensors in checkpoint.glob("*.safetensors"):
            with safe_open(tensors, "np"):
                pass
    except (ResultError, SafetensorError, OSError):
        return False
    return all(zipfile.is_zipfile(path) for path in checkpoint.glob("*.pt"))


def _checkpoint(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


def quiet(trainer: Trainer) -> None:
    """Remove the callback that prints logs to stdout."""
    trainer.remove_callback(PrinterCallback)
