"""The record: run folder, manifest, atomic files. A result without its origin is not a result. Imports no torch."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from scopewise.config import RunConfig
from scopewise.errors import ConfigError, ResultError, UserError

_PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "tokenizers", "safetensors", "numpy", "lm-eval")


def write_text(path: str | Path, text: str) -> None:
    """Write a file so that a reader, or a kill at any moment, sees the old content or the new, never a part."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a binary file as `write_text` does. Raises ResultError where it cannot be written."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise ResultError(
            f"{path}: cannot be written ({error.strerror}); give a place that can be written to, or make room"
        ) from None


def write_json(path: str | Path, document: Any, *, indent: int | None = 2) -> None:
    """Write JSON atomically; NaN and infinity are refused, since JSON has neither. Without indent it is a third as long."""
    separators = (",", ":") if indent is None else None
    write_text(
        path, json.dumps(document, indent=indent, separators=separators, ensure_ascii=False, allow_nan=False) + "\n"
    )


def read_json(path: str | Path) -> Any:
    """Read JSON. Raises ResultError where the file is missing or broken."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultError(f"{path}: {error.strerror}; give a folder that a run has written") from None
    except ValueError:
        raise ResultError(f"{path}: broken JSON; make it again") from None


def config_hash(config: RunConfig) -> str:
    """Return the SHA-256 of what decides a run's numbers: the whole config but where it is written and who makes it."""
    values = config.model_dump(mode="json")
    values["run"].pop("dir")
    for name in ("engine", "cluster"):
        values["bench"].pop(name)
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

    A finished stage is never made again, and never with other inputs: see `stage`. Where several processes work on a run,
    one of them writes.

    Attributes:
        path: The folder.
        writes: Whether this process writes.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        resume: bool = False,
        overwrite: bool = False,
        writes: bool = True,
        wait: Callable[[], None] = lambda: None,
    ) -> None:
        """Open the folder that `config.run.dir` names, or refuse.

        Args:
            config: The run.
            resume: Go on with the run in the folder.
            overwrite: Begin it anew.
            writes: Whether this process is the one that writes.
            wait: Returns when all processes have called it.

        Raises:
            ResultError: it holds a run and neither resume nor overwrite was asked for, or it holds other files.
            ConfigError: both were asked for.
        """
        if resume and overwrite:
            raise ConfigError(
                "--resume, --overwrite: both given; one keeps the run in the folder, one removes it; give one"
            )
        self.path = Path(config.run.dir)
        self.config = config
        self.writes = writes
        self._wait = wait
        self._made: list[Path] | None = None  # folders that this run brought, the innermost first; None: it goes on
        if writes:
            self._open(config, resume, overwrite)
        wait()

    def _open(self, config: RunConfig, resume: bool, overwrite: bool) -> None:
        marker = self.path / "config.yaml"
        if self.path.is_file():
            raise ResultError(f"run.dir: {self.path}; a file; name a folder")
        if self.path.exists() and any(self.path.iterdir()) and not marker.exists() and not _only_temporary(self.path):
            raise ResultError(f"run.dir: {self.path}; a folder that holds other files; name a new one")
        if marker.exists() and overwrite:
            _remove_run(self.path)
        elif marker.exists() and not resume:
            raise ResultError(
                f"run.dir: {self.path} holds a run; add --resume to go on with it, --overwrite to begin it anew, "
                "or name another with --set run.dir=…"
            )
        if not marker.exists():
            self._made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
            write_text(marker, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True))

    def __enter__(self) -> RunFolder:
        """Return the folder; where a UserError ends the block before anything was made in it, it is as it was before."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Remove what a run that made nothing brought: its record of settings, and the folders for it."""
        if self._made is None or kind is None or not issubclass(kind, UserError):
            return
        if {path.name for path in self.path.rglob("*") if path.is_file()} <= {"config.yaml", "inputs.json"}:
            _remove_run(self.path)
            with suppress(OSError):  # somebody put something there meanwhile
                for folder in self._made:
                    folder.rmdir()

    def stage(
        self, name: str, inputs: Mapping[str, Any], data_hash: str, build: Callable[[Path], Mapping[str, Any]]
    ) -> Path:
        """Return the folder of a stage; build it where it does not exist.

        It is built in `NAME.partial` and renamed when it is whole, so that a folder with its name is finished.

        Args:
            name: Path of the stage's folder inside the run folder.
            inputs: Everything that decides what comes out of it, as plain values; kept in `stage.json`.
            data_hash: Of the benchmark, for the manifest.
            build: Fills the folder it is given, and returns what `stage.json` is to hold besides inputs and origin.

        Raises:
            ResultError: the stage was made, or begun, with other inputs; the sentence names those that differ.
        """
        inputs = json.loads(json.dumps(inputs))
        final = self.path / name
        if self.has(final):
            self.same_inputs(final, read_json(final / "stage.json")["inputs"], inputs)
            return final
        work = final.with_name(f"{final.name}.partial")
        begun = work / "inputs.json"
        if self.has(begun):
            self.same_inputs(work, read_json(begun), inputs)
        else:
            self.write(begun, inputs)
        document = build(work)
        origin = manifest(self.config, data_hash)
        self.write(work / "stage.json", {**document, "inputs": inputs, "origin": origin})
        if self.writes:
            shutil.rmtree(work / "checkpoints", ignore_errors=True)
            begun.unlink()
            for left in work.rglob(".*.tmp"):  # of a write that a kill cut off: the folder is this stage's alone
                left.unlink()
            os.replace(work, final)
        self._wait()
        return final

    def has(self, path: Path) -> bool:
        """Return whether a file or folder is there; all processes find the same."""
        self._wait()  # whoever writes may still be writing
        found = path.exists()
        self._wait()  # and must not write before the others have looked
        return found

    def write(self, path: Path, document: Any, indent: int | None = 2) -> None:
        """Write JSON, in the process that writes; it is there for all when they return."""
        if self.writes:
            write_json(path, document, indent=indent)
        self._wait()

    def same_inputs(self, path: Path, made: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """Raise ResultError where something was made with other inputs than it is asked for now."""
        changed = _differences(made, json.loads(json.dumps(now)))
        if changed:
            shown = "; ".join(f"{key} was {before!r}, now {after!r}" for key, before, after in changed[:4])
            raise ResultError(
                f"run.dir: {path} was made with other settings ({shown}); go on with those it was made with, "
                "or name a new folder with --set run.dir=…"
            )


def _remove_run(path: Path) -> None:
    # The marker goes last: a kill in between leaves a folder that --overwrite still recognises as a run.
    for child in sorted(path.iterdir(), key=lambda p: p.name == "config.yaml"):
        shutil.rmtree(child) if child.is_dir() else child.unlink()


def _only_temporary(path: Path) -> bool:
    return all(child.name.endswith(".tmp") for child in path.iterdir())


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Return (dotted key, value in a, value in b) of everything that differs; a missing key counts as None."""
    found = []
    for key in dict.fromkeys((*a, *b)):
        before, after = a.get(key), b.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append((prefix + key, before, after))
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
