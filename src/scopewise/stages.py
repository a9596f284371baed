"""What decides a stage of a run: the sections of the run file that feed it, whole, but for a short list of exceptions.

A finished stage is used again only where its identity is the same. So a setting counts from the moment it exists: it
takes a line in `NOT_DECISIVE`, with the reason, to leave one out. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from scopewise.config import RunConfig

VERSION = 2
"""Of what stands in an identity. Stages of another version are refused, not used again."""

_TARGET = ("run.seed", "data", "model", "lora", "finetune")
_LOCALIZED = (*_TARGET, "localize")

STAGES: Mapping[str, tuple[str, ...]] = {
    "base": ("run.seed", "data", "model.tiny"),
    "target": _TARGET,
    "oracle": _TARGET,
    "region": (*_LOCALIZED, "unlearn.parameters"),
    "model": (*_LOCALIZED, "unlearn"),
    "trial": (*_LOCALIZED, "unlearn", "evaluate.max_tokens", "evaluate.parts"),
    "evaluation": ("data", "model", "evaluate"),
    "attack": ("data", "model", "attack"),
}
"""Stage → the sections (or single fields) that feed it, by itself or through the stages it is made from.

An evaluation and an attack are also told which models they are about, by `model_identity`. `bench` feeds none: it says which
stages there are, and its settings of single methods arrive as the `unlearn` section of a stage."""

NOT_DECISIVE: Mapping[str, str] = {
    "run.dir": "where results are written",
    "data.path": "the content of the rows counts, not where they stand",
    "data.domain": "the content of the rows counts",
    "data.general": "the content of the general text counts",
    "model.oracle": "counts in the evaluations that are compared with it, by its identity",
    "finetune.save_steps": "when a checkpoint is saved changes no number",
    "finetune.save_minutes": "when a checkpoint is saved changes no number",
    "unlearn.save_steps": "when a checkpoint is saved changes no number",
    "unlearn.save_minutes": "when a checkpoint is saved changes no number",
    "attack.attacks": "says which attacks are run",
    "attack.models": "says which models are attacked",
    "attack.threshold": "the verdict is read from the leakage, and kept beside it",
    "attack.max_tokens": "a batch size: equal but for rounding, and lowered where memory is short",
}
"""Settings that decide no stage, and why."""


def identity(
    config: RunConfig, stage: str, content: str, *, without: Collection[str] = (), **others: Any
) -> dict[str, Any]:
    """Return everything that decides a stage, as plain values: section → setting → value.

    Args:
        config: The run file. Of a stage with settings of its own (a method of a bench) with those in their section.
        stage: A key of `STAGES`.
        content: Hash of the benchmark's rows and general text.
        without: Sections that do not feed this one (a region that is given needs no localizer).
        **others: What it depends on besides, such as a seed.
    """
    left_out = set(without)
    if config.model.target is not None and stage in ("region", "model", "trial"):
        left_out |= {"finetune", "run.seed"}  # which made no target here
    made: dict[str, Any] = {"stages": VERSION}
    for name in STAGES[stage]:
        section, _, field = name.partition(".")
        if name not in left_out:
            values = decisive(config, section)
            made[section] = {**made.get(section, {}), **({field: values[field]} if field else values)}
    made["data"]["content"] = content
    return json.loads(json.dumps(made | others))


def decisive(config: RunConfig, section: str) -> dict[str, Any]:
    """Return the settings of a section that decide a stage."""
    values = getattr(config, section).model_dump(mode="json")
    return {name: value for name, value in values.items() if f"{section}.{name}" not in NOT_DECISIVE}


def model_identity(path: str | Path) -> str:
    """Return what tells a model from another: the record of its stage, or its files' sizes and times, or its name."""
    folder = Path(path)
    stage = folder / "stage.json"
    if stage.exists():
        return hashlib.sha256(stage.read_bytes()).hexdigest()
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    return digest([str(path), *((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files)])


def digest(content: Any) -> str:
    """Return a short hash (hex) of plain values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
