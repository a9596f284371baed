"""Rows of `results.json` without metrics: model, settings and cost. Imports no torch."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

from scopewise import schemas
from scopewise.runs.folder import RunFolder
from scopewise.runs.stages import identity

logger = logging.getLogger("scopewise")

_PROTOCOLS = ("paper", "tuned")


def finetuned_row(which: str, model: Path, seed: int) -> dict[str, Any]:
    """Return the row of the target or the oracle.

    Args:
        which: `target` or `oracle`.
        model: Its folder, or a hub name; the cost is known only if a run fine-tuned it.
        seed: `run.seed`.
    """
    made = model / "stage.json"
    cost = schemas.read(made, schemas.StageDocument).get("cost", {}) if made.exists() else {}
    return {
        "model": which,
        "method": which,
        "localizer": None,
        "protocol": None,
        "seed": seed,
        "settings": {},
        "region_fraction": None,
        "cost": {**cost, "localization_seconds": None, "localization": None},
        "path": model.name,
    }


def unlearned_row(run: Path, folder: Path) -> dict[str, Any]:
    """Return the row of an unlearned model from its folder in the run folder."""
    made = schemas.read(folder / "stage.json", schemas.StageDocument)
    kept = {key: value for key, value in made.items() if key not in ("format", "inputs", "weights")}
    return {"model": "unlearned", **kept, "path": folder.relative_to(run).as_posix()}


def other_rows(folder: RunFolder, content: str, own: Collection[str]) -> list[dict[str, Any]]:
    """Return the rows of unlearned models from earlier benchmarks with the same target and data.

    Args:
        folder: The run folder.
        content: Hash of the benchmark.
        own: Paths in the run folder of the models of this benchmark.
    """
    common = identity(
        folder.config, "region", content, without=("lora", "localize", "unlearn.parameters", "unlearn.adapter")
    )
    rows = []
    for stage in sorted(folder.path.glob("models/*/*/seed*/stage.json")):
        name = stage.parent.relative_to(folder.path).as_posix()
        if name in own or stage.parent.suffix == ".partial" or stage.parts[-3] not in _PROTOCOLS:
            continue
        inputs = schemas.read(stage, schemas.StageDocument)["inputs"]
        changed = [key for key in common if inputs.get(key) != common[key]]
        if not changed:
            rows.append(unlearned_row(folder.path, stage.parent))
        elif folder.writes:
            logger.warning(
                "%s was made with other settings of %s; it is left out of the results", name, " and ".join(changed)
            )
    return rows
