"""Time of a whole unlearning run on TOFU's forget01, NPO and the default suite: OpenUnlearning's own code and scopewise.

    python benchmarks/whole_run.py MODEL CHECKOUT --python PYTHON --tofu FOLDER [--epochs N] [--rows N] [--out FILE]

MODEL is a folder with a causal language model; all its parameters are trained. CHECKOUT is an unchanged clone of
locuslab/open-unlearning at d3d7cf9, and PYTHON the interpreter of an environment with what it pins (transformers 4.45.1).
FOLDER holds TOFU's JSON lines as the hub has them; `--rows` cuts each file of the suite. Its holdout authors are not among the
files of every download: where they are not, other retain rows stand for them, on both sides.

Each side is a command in a process of its own: evaluate the model, unlearn, evaluate what came out. Theirs is the experiment
`unlearn/tofu/default` with the trainer `NPO`, but in float32, with PyTorch's attention and AdamW, as a CPU needs; 8 rows at a
time, and all 40 in a step, so that both make the same steps. They draw retain rows in different orders, so the two unlearned
models differ a little. Values are compared where they must be equal: for the model at the start, and for *their* unlearned
model, which our suite evaluates, too; the script stops if they differ.

Their default run has ten epochs, and the suite before the first, after each, and at the end. What that takes follows from the
measured parts. Ours has the suite twice: early stopping looks at held-out hits instead, which `evaluation.py` times.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation import COMMIT, METRICS, OUR_SUITES, PROMPT, TEMPLATE, THEIR_SUITES, agree, check_checkout, prepare
from scopewise.documents import read_json
from scopewise.errors import ResultError
from scopewise.files import write_json
from scopewise.record import manifest

ROWS_AT_ONCE, ACCUMULATED = 8, 5
LEARNING_RATE, WEIGHT_DECAY, BETA = 1e-5, 0.01, 0.1
MAX_LENGTH = 512
EPOCHS = 10


def readable(model: Path, folder: Path) -> None:
    """Copy a model folder so that transformers 4.45 reads it: names that later releases have changed."""
    shutil.copytree(model, folder)
    config, tokenizer = (read_json(folder / name, ResultError) for name in ("config.json", "tokenizer_config.json"))
    config["rope_theta"] = config.get("rope_parameters", config).get("rope_theta", 10_000.0)
    config["torch_dtype"] = "float32"
    tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
    write_json(folder / "config.json", config)
    write_json(folder / "tokenizer_config.json", tokenizer)


def measured(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> dict[str, float]:
    """Run a command; return its seconds, the processor's seconds and its peak memory; stop if it fails."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, env={**os.environ, **environment}, stdout=sys.stderr)
    _, status, used = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"failed: {' '.join(command)}")
    return {
        "wall_seconds": time.perf_counter() - begun,
        "processor_seconds": used.ru_utime + used.ru_stime,
        "peak_memory_bytes": used.ru_maxrss * 1024,
    }


def overrides(arguments: argparse.Namespace, model: Path, out: Path) -> dict[str, object]:
    """Return what we change in their experiment."""
    return {
        "experiment": "unlearn/tofu/default",
        "trainer": "NPO",
        "task_name": "whole_run",
        "paths.output_dir": out,
        "paths.work_dir": out,
        "forget_split": "forget01",
        "retain_split": "retain99",
        "holdout_split": "holdout01",
        "model.model_args.pretrained_model_name_or_path": model,
        "model.tokenizer_args.pretrained_model_name_or_path": model,
        "model.model_args.attn_implementation": "sdpa",
        "model.model_args.torch_dtype": "float32",
        "trainer.method_args.beta": BETA,
        "trainer.args.learning_rate": LEARNING_RATE,
        "trainer.args.weight_decay": WEIGHT_DECAY,
        "trainer.args.per_device_train_batch_size": ROWS_AT_ONCE,
        "trainer.args.gradient_accumulation_steps": ACCUMULATED,
        "trainer.args.num_train_epochs": arguments.epochs,
        "trainer.args.warmup_epochs": "null",  # they divide by the number of GPUs
        "+trainer.args.warmup_steps": 1,
        "trainer.args.eval_strategy": "'no'",
        "trainer.args.bf16": "false",
        "trainer.args.bf16_full_eval": "false",
        "trainer.args.optim": "adamw_torch",
        "+trainer.args.use_cpu": "true",
        "trainer.args.report_to": "none",
    }


def theirs(arguments: argparse.Namespace, folder: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Run their command; the folder gets `theirs/model`, what it unlearned."""
    model = folder / "theirs" / "start"
    readable(arguments.model, model)
    settings = {
        "files": str(folder),
        "template": TEMPLATE,
        "overrides": [
            f"{key}={value}" for key, value in overrides(arguments, model, folder / "theirs" / "model").items()
        ],
    }
    write_json(folder / "theirs.json", settings)
    script = str(Path(__file__).with_name("open_unlearning_run.py").resolve())
    out = folder / "theirs" / "run.json"
    given = [str(arguments.python), script, str(arguments.checkout.resolve()), str(folder / "theirs.json"), str(out)]
    taken = measured(given, folder, {**environment, "CUDA_VISIBLE_DEVICES": ""})
    inside = read_json(out, ResultError)
    return {**taken, **inside}


def run_file(arguments: argparse.Namespace, folder: Path) -> Path:
    """Write the same run for scopewise."""
    path = folder / "ours.yaml"
    document = {
        "run": {"dir": str(folder / "ours")},
        "model": {"path": str(arguments.model.resolve()), "target": str(arguments.model.resolve())},
        "data": {
            "benchmark": "tofu",
            "domain": "forget01",
            "path": str(folder),
            "prompt": PROMPT,
            "max_length": MAX_LENGTH,
        },
        "unlearn": {
            "parameters": "all",
            "learning_rate": LEARNING_RATE,
            "weight_decay": WEIGHT_DECAY,
            "lr_scheduler_type": "linear",
            "warmup_steps": 1,
            "num_train_epochs": arguments.epochs,
            "batch_size": ROWS_AT_ONCE,
            "gradient_accumulation_steps": ACCUMULATED,
        },
        "evaluate": {
            "metrics": list(METRICS),
            "splits": ["val"],
            "generate_splits": ["val"],
            "direct_splits": [],
            "max_new_tokens": 200,
            "eos": True,
        },
        "bench": {"methods": ["npo"], "oracle": False, "settings": {"npo": {"method_args": {"beta": BETA}}}},
    }
    write_json(path, document)  # JSON is YAML
    return path


def ours(arguments: argparse.Namespace, folder: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Run our command, and evaluate what theirs unlearned, which is not timed."""
    path = str(run_file(arguments, folder))
    command = [sys.executable, "-m", "scopewise"]
    taken = measured([*command, "bench", path], folder, environment)
    rows = {row["method"]: row for row in read_json(folder / "ours" / "results.json", ResultError)["rows"]}
    suites = [rows[name]["metrics"] for name in ("target", "npo")]
    out = folder / "evaluation.json"
    measured([*command, "evaluate", str(folder / "theirs" / "model"), path, "--output", str(out)], folder, environment)
    suites.append({key: value["value"] for key, value in read_json(out, ResultError)["values"].items()})
    training = rows["npo"]["cost"]["seconds"]
    return {
        **taken,
        "training_seconds": training,
        "suite_seconds": (taken["wall_seconds"] - training) / 2,
        "suites": suites,
    }


def compared(their: Mapping[str, Any], our: Mapping[str, Any], epochs: int) -> dict[str, tuple[float, float]]:
    """Return the seconds of each part on both sides, and of their default run. A step is an epoch."""
    sides = (their, our)
    walls, training = ([side[key] for side in sides] for key in ("wall_seconds", "training_seconds"))
    rest = [wall - trained for wall, trained in zip(walls, training, strict=True)]
    suites = their["suite_seconds"]
    more = ((THEIR_SUITES - len(suites)) * sum(suites) / len(suites), 0.0)
    whole = [r + EPOCHS * t / epochs + m for r, t, m in zip(rest, training, more, strict=True)]
    return {
        f"training, {epochs} steps of 40 forget and 40 retain rows": (training[0], training[1]),
        "the rest of the command: its start and two default suites": (rest[0], rest[1]),
        "the command": (walls[0], walls[1]),
        f"its default run: {EPOCHS} epochs, {THEIR_SUITES} suites (ours: {OUR_SUITES})": (whole[0], whole[1]),
    }


def main() -> None:
    """Measure, print a table, write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--python", type=Path, required=True)
    parser.add_argument("--tofu", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=0, help="of each file of the suite (0: all)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default=str(Path(__file__).parent / "results" / "whole_run.json"))
    arguments = parser.parse_args()
    check_checkout(arguments.checkout)
    environment = {"OMP_NUM_THREADS": str(arguments.threads), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(arguments.tofu, folder, arguments.rows, "forget01", None)
        their = theirs(arguments, folder, environment)
        our = ours(arguments, folder, environment)
    values = {
        "start": agree(their["suites"][0], our["suites"][0]),
        "their unlearned model": agree(their["suites"][1], our["suites"][2]),
    }
    sides = {"open_unlearning": their, "scopewise": our}
    found = compared(their, our, arguments.epochs)
    document = {
        "manifest": manifest(None, None),
        "open_unlearning": COMMIT,
        "threads": arguments.threads,
        "rows": arguments.rows,
        "epochs": arguments.epochs,
        "measured": {
            name: {key: value for key, value in side.items() if key != "suites"} for name, side in sides.items()
        },
        "seconds": found,
        "values": values,
    }
    write_json(arguments.out, document)
    print("| | OpenUnlearning | scopewise | ratio |\n|---|---:|---:|---:|")
    for name, (one, other) in found.items():
        print(f"| {name} | {one:.0f} s | {other:.0f} s | {one / other:.1f}x |")
    peaks = [side["peak_memory_bytes"] / 2**20 for side in (their, our)]
    print(f"| peak memory, MiB | {peaks[0]:.0f} | {peaks[1]:.0f} | {peaks[0] / peaks[1]:.1f}x |")


if __name__ == "__main__":
    main()
