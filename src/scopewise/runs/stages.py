"""The identity of a stage: the settings of all sections that it depends on, except a short list.

A complete stage is reused only if its identity is the same. Every setting counts by default, also a new one, unless
`NOT_DECISIVE` lists it with a reason. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from scopewise.config import RunConfig

VERSION = 3
"""Version of the identities' format. Stages of another version are refused."""

_TARGET = ("run.seed", "data", "model", "lora", "finetune")
_LOCALIZED = (*_TARGET, "localize")

STAGES: Mapping[str, tuple[str, ...]] = {
    "base": ("run.seed", "data", "model.tiny"),
    "target": _TARGET,
    "oracle": _TARGET,
    "retrain": _TARGET,
    "merged": ("data", "model"),
    "region": (*_LOCALIZED, "unlearn.parameters", "unlearn.adapter"),
    "model": (*_LOCALIZED, "unlearn"),
    "trial": (*_LOCALIZED, "unlearn", "evaluate.max_tokens", "evaluate.parts"),
    "held out": ("data", "model", "evaluate.max_tokens", "evaluate.parts"),
    "evaluation": ("data", "model", "evaluate"),
    "attack": ("data", "model", "attack"),
}
"""Stage → the sections (or single fields) that it depends on, directly or through earlier stages.

The identities of an evaluation and an attack also contain those of their models, from `model_identity`. `bench` is
in no identity: it only selects stages, and its settings for single methods are part of the `unlearn` section of a stage."""

NOT_DECISIVE: Mapping[str, str] = {
    "run.dir": "where results are written",
    "data.path": "the content of the rows counts, not their path",
    "data.domain": "the content of the rows counts",
    "data.instances": "the content of the rows counts",
    "data.general": "the content of the general text counts",
    "model.oracle": "counts in the evaluations that are compared with it, by its identity",
    "finetune.save_steps": "the time of checkpoints does not affect results",
    "finetune.save_minutes": "the time of checkpoints does not affect results",
    "unlearn.save_steps": "the time of checkpoints does not affect results",
    "unlearn.save_minutes": "the time of checkpoints does not affect results",
    "attack.attacks": "says which attacks are run",
    "attack.models": "says which models are attacked",
    "attack.threshold": "the verdict is derived from the leakage",
    "attack.max_tokens": "a batch size: results are equal up to rounding, and it is lowered if memory is short",
}
"""Settings that are in no identity, and why."""


def unlearned_name(entry: str, protocol: str, seed: int) -> str:
    """Return the path of an unlearned model in a run folder."""
    return f"models/{entry}/{protocol}/seed{seed}"


def identity(
    config: RunConfig, stage: str, content: str, *, without: Collection[str] = (), **others: Any
) -> dict[str, Any]:
    """Return the identity of a stage as plain values: section → setting → value.

    Args:
        config: The run file, with settings of the stage's own (a method of a benchmark) in their section.
        stage: A key of `STAGES`.
        content: Hash of the benchmark's rows and general text.
        without: Sections to leave out (with a given region, `localize` has no effect).
        **others: Other inputs, such as a seed.
    """
    left_out = set(without)
    if config.model.target is not None and stage in ("region", "model", "trial"):
        left_out |= {"finetune", "run.seed"}  # they had no effect on a given target
    made: dict[str, Any] = {"stages": VERSION}
    for name in STAGES[stage]:
        section, _, field = name.partition(".")
        if name not in left_out:
            values = decisive(config, section)
            made[section] = {**made.get(section, {}), **({field: values[field]} if field else values)}
    made["data"]["content"] = content
    return json.loads(json.dumps(made | others))


def decisive(config: RunConfig, section: str) -> dict[str, Any]:
    """Return the settings of a section that are part of an identity."""
    values = getattr(config, section).model_dump(mode="json")
    return {name: value for name, value in values.items() if f"{section}.{name}" not in NOT_DECISIVE}


_WEIGHTS = (".safetensors", ".gguf")


def model_identity(path: str | Path) -> str:
    """Return a model's identity: the hash of its stage's record, or else of its path, file sizes and file times."""
    folder = Path(path)
    stage = folder / "stage.json"
    if stage.exists():
        return hashlib.sha256(stage.read_bytes()).hexdigest()
    files = sorted(f for f in folder.iterdir() if f.suffix in _WEIGHTS) if folder.is_dir() else []
    if folder.suffix == ".gguf" and folder.is_file():
        files = [folder]
    return digest([str(path), *((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files)])


def digest(content: Any) -> str:
    """Return a short hash (hex) of plain values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
