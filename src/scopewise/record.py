"""The record: run folder, manifest, atomic files. A result without its origin is not a result. Imports no torch."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from scopewise.config import RunConfig
from scopewise.errors import ResultError

_PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "tokenizers", "safetensors", "numpy")


def write_text(path: str | Path, text: str) -> None:
    """Write a file so that a reader, or a kill at any moment, sees the old content or the new, never a part."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_json(path: str | Path, document: Any) -> None:
    """Write JSON atomically; NaN and infinity are refused, since JSON has neither."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON. Raises ResultError where the file is missing or broken."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultError(f"{path}: {error.strerror}; give a folder that a run has written") from None
    except ValueError:
        raise ResultError(f"{path}: broken JSON; make it again") from None


def config_hash(config: RunConfig) -> str:
    """Return the SHA-256 of what decides a run's numbers: the whole config but the folder it is written to."""
    values = config.model_dump(mode="json")
    values["run"].pop("dir")
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def manifest(config: RunConfig | None, data_hash: str | None) -> dict[str, Any]:
    """Return where a result comes from: config, code, data, environment, hardware and date."""
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


class RunFolder:
    """The folder of one run, and the rules for writing to it.

    Attributes:
        path: The folder.
    """

    def __init__(self, config: RunConfig, *, resume: bool = False, overwrite: bool = False) -> None:
        """Open the folder that `config.run.dir` names, or refuse.

        Raises:
            ResultError: it holds a run and neither resume nor overwrite was asked for, or resume was asked for
                with another config than it was begun with.
        """
        self.path = Path(config.run.dir)
        marker = self.path / "config.yaml"
        if self.path.exists() and any(self.path.iterdir()) and not marker.exists() and not _only_temporary(self.path):
            raise ResultError(f"run.dir: {self.path}; a folder that holds other files; name a new one")
        if marker.exists() and overwrite:
            _remove_run(self.path)
        elif marker.exists() and not resume:
            raise ResultError(
                f"run.dir: {self.path} holds a run; add --resume to go on with it, --overwrite to begin it anew, "
                "or name another with --set run.dir=…"
            )
        elif marker.exists():
            begun = RunConfig.model_validate(yaml.safe_load(marker.read_text(encoding="utf-8")))
            if config_hash(begun) != config_hash(config):
                changed = ", ".join(_differences(begun.model_dump(), config.model_dump()))
                raise ResultError(
                    f"run.dir: {self.path} was begun with another config ({changed}); resume with the one it was "
                    "begun with, or name a new folder"
                )
        if not marker.exists():
            write_text(marker, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


def _remove_run(path: Path) -> None:
    # The marker goes last: a kill in between leaves a folder that --overwrite still recognises as a run.
    for child in sorted(path.iterdir(), key=lambda p: p.name == "config.yaml"):
        shutil.rmtree(child) if child.is_dir() else child.unlink()


def _only_temporary(path: Path) -> bool:
    return all(child.name.endswith(".tmp") for child in path.iterdir())


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in a:
        if prefix + key == "run.dir":
            continue
        if isinstance(a[key], dict) and isinstance(b[key], dict) and set(a[key]) == set(b[key]):
            found += _differences(a[key], b[key], f"{prefix}{key}.")
        elif a[key] != b[key]:
            found.append(prefix + key)
    return found


def _commit() -> str | None:
    """Commit of the source tree, with `+changes` where it has uncommitted ones; None for an installed package."""
    folder = Path(__file__).parent
    try:
        git = ["git", "-C", str(folder)]
        top = subprocess.run(
            [*git, "rev-parse", "--show-toplevel"], capture_output=True, text=True, timeout=10, check=True
        )
        if Path(top.stdout.strip()).resolve() != folder.resolve().parents[1]:
            return None  # installed into a virtual environment inside somebody else's repository
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
        dirty = subprocess.run(
            [*git, "status", "--porcelain", "--", "."], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("+changes" if dirty.stdout.strip() else "")


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
