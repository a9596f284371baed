"""The origin of a result: its config, code, data and environment. Imports no torch."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import subprocess
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from scopewise.config import RunConfig

_PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "tokenizers", "safetensors", "numpy", "lm-eval")


_PATHS = (
    *(("model", key) for key in ("path", "target", "oracle")),
    *(("data", key) for key in ("path", "general")),
    ("unlearn", "region"),
    *(("evaluate", key) for key in ("reference_model", "entailment_model", "fluency_model", "language_model")),
)
"""Settings that name files and folders; those of models may be names of the hub too."""


def _paths(values: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Return which of a config's plain values are paths: `_PATHS`, and settings called `file` or `path`."""
    own = [
        *values["attack"]["attack_args"].values(),
        values["localize"]["localizer_args"],
        values["unlearn"]["method_args"],
    ]
    found = [(values[section], key) for section, key in _PATHS]
    found += [(arguments, key) for arguments in own for key in ("file", "path") if key in arguments]
    return [(mapping, key) for mapping, key in found if isinstance(mapping[key], str)]


def stored(config: RunConfig) -> dict[str, Any]:
    """Return a config as plain values, with existing paths made absolute, so that it can be read from any folder."""
    values = config.model_dump(mode="json")
    ability = values["evaluate"]["ability"]
    for mapping, key in [*_paths(values), *([(ability, "path")] if ability["path"] is not None else [])]:
        with suppress(OSError, ValueError):  # a name too long, or in a loop of links: no file
            if Path(mapping[key]).exists():
                mapping[key] = str(Path(mapping[key]).absolute())
    return values


def config_hash(config: RunConfig) -> str:
    """Return the SHA-256 of the settings that affect a run's numbers: the config without its folder and engine."""
    values = stored(config)
    for mapping, key in _paths(values):
        if Path(mapping[key]).is_absolute():  # their content is in the hash of the data, or in the stage's inputs
            mapping[key] = Path(mapping[key]).name
    values["run"].pop("dir")
    for name in ("engine", "cluster"):
        values["bench"].pop(name)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def manifest(config: RunConfig | None, data_hash: str | None) -> dict[str, Any]:
    """Return the origin of a result: config, code, data, environment, hardware and date."""
    return {
        "scopewise": metadata.version("scopewise"),
        "commit": _commit(),
        "config_hash": config_hash(config) if config is not None else None,
        "data_hash": data_hash,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


def _commit() -> str | None:
    """Commit of the source tree, with `+changes` if it has uncommitted changes; None for an installed package."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != folder.resolve().parents[1]:
            return None  # installed into a virtual environment inside somebody else's repository
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
