"""Plain LoRA fine-tuning with TRL's SFTTrainer and with scopewise: the same rows, the same losses, seconds of a step.

    python benchmarks/fine_tuning.py MODEL --data FOLDER [--rows 16] [--steps 4] [--rounds 3] [--threads 1] [--out FILE]

Needs `pip install --no-deps trl`; its other requirements are installed with `scopewise[dev]`. FOLDER has KnowUnDo's privacy
rows. Both sides get the same adapter, and a step is all rows, so that the order of rows does not matter and the losses of each
step must be equal, or the script stops. Gradient checkpointing, which TRL has on by default, is off on both sides, since there
is memory for it. They take turns. A step is from the end of one to the end of the next; the first does not count. Peak memory
is that of the process in the training, above what was resident before.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import Trainer, TrainerCallback

from scopewise.allocator import keep_freed_memory, release_memory
from scopewise.cli import quiet_libraries
from scopewise.config import LoraSection, ModelSection
from scopewise.cost import Cost
from scopewise.data.load import load_benchmark
from scopewise.data.prompt import Encoded, encode
from scopewise.data.rows import TRAIN
from scopewise.files import write_json
from scopewise.methods.cross_entropy import Retrain
from scopewise.models.adapters import lora_config, with_adapter
from scopewise.models.load import load_model, load_tokenizer
from scopewise.record import manifest
from scopewise.training.arguments import UnlearningConfig
from scopewise.training.trainer import UnlearningTrainer

LARGEST_DIFFERENCE = 1e-3
"""Of two losses of a step, relative: the sides add in another order."""
SAME: dict[str, Any] = {
    "learning_rate": 5e-4,
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "optim": "adamw_torch",
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
    "seed": 0,
}


class Ends(TrainerCallback):
    """When each step ended."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def on_step_end(self, *given: Any, **named: Any) -> None:
        """Take the time."""
        self.at.append(time.perf_counter())


def ours(model: Any, tokenizer: Any, items: Sequence[Encoded], steps: int, folder: str) -> Trainer:
    """Return our trainer, as `scopewise finetune` makes it."""
    args = UnlearningConfig(output_dir=folder, per_device_train_batch_size=len(items), max_steps=steps, **SAME)
    return UnlearningTrainer(
        model, method=Retrain(), args=args, forget_dataset=list(items), processing_class=tokenizer, region="all"
    )


def trl(model: Any, tokenizer: Any, items: Sequence[Encoded], steps: int, folder: str) -> Trainer:
    """Return TRL's trainer, with the loss of the answers only."""
    from trl import SFTConfig, SFTTrainer

    rows = [
        {
            "input_ids": [*item.prompt_ids, *item.answer_ids],
            "completion_mask": [0] * len(item.prompt_ids) + [1] * len(item.answer_ids),
        }
        for item in items
    ]
    args = SFTConfig(
        output_dir=folder, per_device_train_batch_size=len(items), max_steps=steps, bf16=False, gradient_checkpointing=False,
        completion_only_loss=True, **SAME,
    )  # fmt: skip
    return SFTTrainer(model, args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)


SIDES: dict[str, Callable[..., Trainer]] = {"TRL": trl, "scopewise": ours}


def one(side: str, model_path: str, items: Sequence[Encoded], steps: int) -> dict[str, Any]:
    """Return the losses, the seconds of the steps but the first, and the memory of one training."""
    release_memory()
    tokenizer = load_tokenizer(model_path)
    model = with_adapter(
        load_model(model_path, ModelSection(dtype="float32")), lora_config(LoraSection(lora_dropout=0.0)), 0
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = SIDES[side](model, tokenizer, items, steps + 1, folder)
        ends = Ends()
        trainer.add_callback(ends)
        with Cost() as before:
            pass
        with Cost() as cost:
            trainer.train()
    return {
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "seconds": [after - earlier for earlier, after in zip(ends.at, ends.at[1:], strict=False)],
        "added_bytes": cost.peak_memory_bytes - before.peak_memory_bytes,
    }


def same_work(found: dict[str, dict[str, Any]]) -> float:
    """Return the largest relative difference of two losses; SystemExit if the sides do not do the same."""
    losses = [run["losses"] for run in found.values()]
    worst = max(abs(a - b) / b for other in losses for a, b in zip(other, losses[-1], strict=True))
    if worst > LARGEST_DIFFERENCE:
        raise SystemExit(f"losses disagree: {[run['losses'] for run in found.values()]}")
    return worst


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(words)
    quiet_libraries()
    keep_freed_memory()  # as the command does; all sides have it
    torch.set_num_threads(given.threads)
    rows = load_benchmark("knowundo", given.data, "privacy").select(split=TRAIN)
    items = encode(rows[:: max(1, len(rows) // given.rows)][: given.rows], load_tokenizer(given.model))

    taken: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    worst = 0.0
    for number in range(given.rounds):
        for side in SIDES:
            taken[side].append(one(side, given.model, items, given.steps))
            print(f"round {number + 1} of {given.rounds}, {side}: {taken[side][-1]['seconds']}", file=sys.stderr)
        worst = max(worst, same_work({side: runs[-1] for side, runs in taken.items()}))
    seconds = {side: statistics.median(s for run in runs for s in run["seconds"]) for side, runs in taken.items()}
    print("| | seconds of a step | over scopewise's | memory of the training, MiB |\n|---|---:|---:|---:|")
    for side, runs in taken.items():
        added = statistics.median(run["added_bytes"] for run in runs) / 2**20
        print(f"| {side} | {seconds[side]:.2f} | {seconds[side] / seconds['scopewise']:.2f}x | {added:.0f} |")
    print(f"\nLosses differ by at most {worst:.1e} of their value.")
    if given.out is not None:
        found = {
            "manifest": manifest(None, None), "model": Path(given.model).name, "threads": given.threads,
            "rows": len(items), "tokens": sum(map(len, items)), "largest_difference": worst, "runs": taken, "median": seconds,
        }  # fmt: skip
        write_json(given.out, found)


if __name__ == "__main__":
    main()
