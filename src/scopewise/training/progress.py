"""The progress bar of training, on stderr with the loss; also records the time of every step."""

from __future__ import annotations

import contextlib
import zipfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from tqdm import tqdm
from transformers import PrinterCallback, Trainer, TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME

from scopewise import schemas
from scopewise.bars import Inner, Lines, bar
from scopewise.cost import Cost
from scopewise.documents import read_json
from scopewise.errors import ResultError
from scopewise.files import seal, write_json


class TrainingProgress(TrainerCallback):
    """One bar per training; the trainer's own would print logs to stdout, which is for results."""

    def __init__(self, name: str, cost: Cost) -> None:
        self.name = name
        self.cost = cost
        self.bar: tqdm | Lines | Inner | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar; a resumed training continues its step and cost."""
        kept = cost_file(_checkpoint(args, state))
        if state.global_step and kept.exists():
            self.cost.go_on_from(schemas.read(kept, schemas.CostDocument))
        first = state.global_step
        self.bar = bar(state.max_steps, self.name, "step", initial=first, disable=not state.is_world_process_zero)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the timer of the step."""
        self._step = contextlib.ExitStack()
        self._step.enter_context(self.cost.step())

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the timer of the step."""
        self._step.close()
        assert self.bar is not None
        self.bar.update(1)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save the cost so far with the checkpoint."""
        if state.is_world_process_zero:
            seal(_checkpoint(args, state))
            # With several processes, others may still be writing their files.
            files = {"files": _sizes(_checkpoint(args, state))} if args.world_size == 1 else {}
            kept = {"format": schemas.CostDocument.FORMAT, **self.cost.so_far(), **files}
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
    """Return the file with the cost up to a checkpoint, which is written last."""
    return checkpoint / "cost.json"


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a training, the newest first."""
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)


def fault_of(checkpoint: Path) -> str | None:
    """Return why a training cannot resume from a checkpoint: a truncated, missing or incompatible file; else None.

    Sizes can be checked only if a single process saved it, which recorded them.
    """
    documents: dict[str, type[schemas.Document]] = {
        "cost.json": schemas.CostDocument,
        "unlearning_state.json": schemas.StateDocument,
        "probes.json": schemas.ProbesDocument,
    }
    if not cost_file(checkpoint).exists():
        return "it was not saved to its end"
    try:
        for name, schema in documents.items():
            if (checkpoint / name).exists() and "format" not in schemas.read(checkpoint / name, schema):
                return f"{name} is of an earlier version"
        for name, size in schemas.read(cost_file(checkpoint), schemas.CostDocument).get("files", {}).items():
            if not (checkpoint / name).is_file():
                return f"{name} is missing"
            if (found := (checkpoint / name).stat().st_size) != size:
                return f"{name} has {found} of {size} bytes"
        state = read_json(checkpoint / TRAINER_STATE_NAME, ResultError)
        if not isinstance(state, dict) or not isinstance(state.get("global_step"), int):
            return f"{TRAINER_STATE_NAME} names no step"
        for path in sorted(checkpoint.rglob("*")):
            if path.suffix == ".safetensors":
                try:
                    with safe_open(path, "np"):
                        pass
                except (SafetensorError, OSError) as error:
                    return f"{path.name} cannot be read ({error})"
            elif path.suffix in (".pt", ".pth") and not zipfile.is_zipfile(path):
                return f"{path.name} is cut off, or no file of tensors"
    except ResultError as error:
        return str(error).removeprefix(f"{checkpoint}/")
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    return None


def _sizes(checkpoint: Path) -> dict[str, int]:
    """Return the files of a checkpoint with their sizes in bytes, except the file that will list them."""
    files = (path for path in sorted(checkpoint.rglob("*")) if path.is_file() and path != cost_file(checkpoint))
    return {path.relative_to(checkpoint).as_posix(): path.stat().st_size for path in files}


def _checkpoint(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


def quiet(trainer: Trainer) -> None:
    """Remove the callback that prints logs to stdout."""
    trainer.remove_callback(PrinterCallback)
