"""The run folder: complete stages only, private files, one writer at a time. Imports no torch."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from scopewise import schemas
from scopewise.config import RunConfig
from scopewise.documents import read_json
from scopewise.errors import ConfigError, ResultError, UserError, note_kept
from scopewise.files import FOLDER_MODE, flush, make_folder, no_room, remove, seal, write_json, write_text, writing
from scopewise.lock import HOLDER, LOCK, RunLock, join
from scopewise.record import manifest, stored
from scopewise.runs.stages import VERSION
from scopewise.tensor_files import damage

_SHOWN = 4
"""Settings that a sentence names."""


class RunFolder:
    """The folder of one run, and the rules for writing to it.

    A finished stage is reused, and refused if its inputs have changed: see `stage`. If several processes work on a run,
    only one of them writes. Only one command at a time may use the folder: opening it takes its `RunLock`, and the end of
    the `with` block (or of the process) releases it.

    Attributes:
        path: The folder.
        writes: Whether this process writes.
        token: With it, the jobs of a bench may use the folder while the bench holds the lock; None if this process does not
            write.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        resume: bool = False,
        overwrite: bool = False,
        writes: bool = True,
        wait: Callable[[], None] = lambda: None,
        joins: str | None = None,
    ) -> None:
        """Open the folder that `config.run.dir` names, or refuse.

        Args:
            config: The run.
            resume: Continue the run in the folder.
            overwrite: Overwrite the run folder.
            writes: Whether this process is the one that writes.
            wait: Returns when all processes have called it.
            joins: The `token` of the bench that this job belongs to; None for a command.

        Raises:
            ResultError: it holds a run and neither resume nor overwrite was asked for, it holds other files, it cannot be
                written, or another command works on it.
            ConfigError: both were asked for.
        """
        if resume and overwrite:
            raise ConfigError(
                "--resume, --overwrite: both given; one keeps the run in the folder, one removes it; give one"
            )
        self.path = Path(config.run.dir)
        self.config = config
        self.writes = writes
        self.token = joins
        self._wait = wait
        self._lock: RunLock | None = None
        self._config_kept = joins is not None  # the bench has done so
        self._made: list[Path] | None = None  # folders this run created, the innermost first; None if it resumes
        if writes:
            with writing(self.path, "run.dir"):
                self._open(config, resume, overwrite, joins)
        wait()

    def _open(self, config: RunConfig, resume: bool, overwrite: bool, joins: str | None) -> None:
        marker = self.path / "config.yaml"
        self._refuse(marker, resume, overwrite)
        made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        make_folder(self.path, "run.dir")
        if joins is not None:
            join(self.path, joins)
        else:
            self._lock = RunLock(self.path).__enter__()
            self.token = self._lock.token
        try:
            self._refuse(marker, resume, overwrite)  # another process may have created a run before we got the lock
            if marker.exists() and overwrite:
                _remove_run(self.path)
            if resume and joins is None:  # before anything is made from finished stages
                for stage in (file.parent for file in sorted(self.path.rglob("stage.json"))):
                    if not any(part.endswith(".partial") for part in stage.relative_to(self.path).parts):
                        _check_stage(stage, self.path)
            if joins is None:
                for left in sorted(
                    self.path.rglob(".*.tmp")
                ):  # left by a kill; nobody else writes here while we hold the lock
                    remove(left)
            if not marker.exists():
                self._made = made
                self.path.chmod(FOLDER_MODE)
                self._write_config()
        except BaseException:
            self._release()
            raise

    def _refuse(self, marker: Path, resume: bool, overwrite: bool) -> None:
        try:
            self.path.stat()
        except FileNotFoundError:
            return
        if self.path.is_file():
            raise ResultError(f"run.dir: {self.path}; a file; name a folder")
        if not marker.exists() and any(not _ours(child) for child in self.path.iterdir()):
            raise ResultError(f"run.dir: {self.path}; a folder that holds other files; name a new one")
        if marker.exists() and not resume and not overwrite:
            raise ResultError(
                f"run.dir: {self.path} contains a run; add --resume to continue it, --overwrite to replace it, "
                "or name another with --set run.dir=…"
            )

    def _write_config(self) -> None:
        values = stored(self.config)
        if (
            self.config.model.target is not None
        ):  # the target may have an adapter, with which given settings are compared
            values["lora"] = self.config.lora.model_dump(mode="json", exclude_unset=True)
        write_text(self.path / "config.yaml", yaml.safe_dump(values, sort_keys=False, allow_unicode=True))

    def __enter__(self) -> RunFolder:
        """Return the folder. On a UserError before any output, leave it unchanged."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        """Remove the config and the folders of a run without any output.

        Raises:
            ResultError: the block ended because the disk is full.
        """
        try:
            if kind is None:
                self.keep_config()
            if self._made is not None and kind is not None and issubclass(kind, UserError):
                self._undo(self._made)
            if isinstance(error, KeyboardInterrupt) and (self.path / "config.yaml").exists():
                note_kept(error)
        finally:
            self._release()
        if isinstance(error, Exception) and not isinstance(error, UserError) and (reason := no_room(error)):
            raise ResultError(
                f"run.dir: {self.path}; what was under way cannot be written ({reason}); finished stages are kept: make "
                "room, and add --resume"
            ) from error

    def _undo(self, made: list[Path]) -> None:
        names = {path.name for path in self.path.rglob("*") if path.is_file()}
        if names <= {"config.yaml", "inputs.json", LOCK, HOLDER}:
            _remove_run(self.path)
            with suppress(OSError):  # not empty any more
                for name in (HOLDER, LOCK):
                    (self.path / name).unlink(missing_ok=True)
                for folder in made:
                    folder.rmdir()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.__exit__()
            self._lock = None

    def stage(
        self, name: str, inputs: Mapping[str, Any], data_hash: str, build: Callable[[Path], Mapping[str, Any]]
    ) -> Path:
        """Return the folder of a stage, and build it if it does not exist.

        It is built in `NAME.partial` and renamed when it is complete, so a folder called `NAME` is always complete.

        Args:
            name: Path of the stage's folder inside the run folder.
            inputs: Everything that its result depends on, from `stages.identity`; stored in `stage.json`.
            data_hash: Hash of the benchmark, for the manifest.
            build: Fills the folder it is given, and returns further content of `stage.json`, besides inputs and provenance.

        Raises:
            ResultError: the stage was made with other inputs; the message names those that differ.
        """
        inputs = {"stages": VERSION, **json.loads(json.dumps(inputs))}
        final = self.path / name
        if self.has(final):
            self.same_inputs(final, schemas.read(final / "stage.json", schemas.StageDocument)["inputs"], inputs)
            return final
        work = final.with_name(f"{final.name}.partial")
        self.begin(work, inputs)
        document = build(work)
        origin = manifest(self.config, data_hash)
        weights = {file.name: file.stat().st_size for file in sorted(work.glob("*.safetensors"))} if self.writes else {}
        made = {**document, "weights": weights, "inputs": inputs, "origin": origin}
        self.write(work / "stage.json", {"format": schemas.StageDocument.FORMAT, **made})
        if self.writes:
            with writing(work):
                remove(work / "checkpoints")
                (work / "inputs.json").unlink()
                seal(work)
                os.replace(work, final)
                flush(final.parent)
        self._wait()
        return final

    def begin(self, work: Path, inputs: Mapping[str, Any]) -> None:
        """Begin or resume the work in a folder; work with other inputs is discarded.

        No other stage depends on an unfinished one, so a corrected setting simply takes effect.
        """
        inputs, begun = json.loads(json.dumps(inputs)), work / "inputs.json"
        same = False
        if self.has(begun):
            with suppress(ResultError):  # broken: discard it
                same = read_json(begun, ResultError) == inputs
        if not same:
            self._wait()  # until all processes have read it
            if self.writes:
                with writing(work):
                    remove(work)
                    make_folder(work)
            self.write(begun, inputs)
        self.keep_config()

    def keep_config(self) -> None:
        """Write this config to the folder's `config.yaml`, since the following stages use it."""
        if self.writes and not self._config_kept:
            self._write_config()
            self._config_kept = True

    def has(self, path: Path) -> bool:
        """Return whether a file or folder exists; all processes return the same."""
        self._wait()  # the writer may still be writing
        found = path.exists()
        self._wait()  # and must not continue before the others have looked
        return found

    def write(self, path: Path, document: Any, indent: int | None = 2) -> None:
        """Write JSON from the main process; the file exists when any process returns."""
        if self.writes:
            write_json(path, document, indent=indent)
        self._wait()

    def same_inputs(self, path: Path, made: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """Raise ResultError if a result was made with other inputs, or by another version."""
        _check_version(made, path, self.path)
        changed = _differences(made, json.loads(json.dumps(now)))
        if changed:
            shown = "; ".join(f"{key} was {before!r}, now {after!r}" for key, before, after in changed[:_SHOWN])
            more = f"; and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
            raise ResultError(
                f"run.dir: {path} was made with other settings ({shown}{more}); {self._reusing(changed)}, "
                "or name a new folder with --set run.dir=…"
            )

    def _reusing(self, changed: Sequence[tuple[str, Any, Any]]) -> str:
        """Return the advice for continuing with the existing stage: the settings to give, if all differences are settings."""
        sections = type(self.config).model_fields
        words = []
        own = bool(self.config.bench.settings or self.config.bench.paper)  # of a method: they go before `unlearn`
        for given, before, _ in changed:
            key = "run.seed" if given == "seed" else given
            section, _, name = key.partition(".")
            known = type(getattr(self.config, section)).model_fields if section in sections else {}
            if name.partition(".")[0] not in known or (section == "unlearn" and own):
                return "use those it was made with"
            words.append(shlex.quote(f"{key}={json.dumps(before)}"))
        return f"to continue it, add --resume {' '.join(f'--set {word}' for word in dict.fromkeys(words))}"


def _check_version(inputs: Mapping[str, Any], made: Path, run: Path) -> None:
    """Raise ResultError for a run of an earlier version, which recorded fewer of the settings that identify a stage."""
    if inputs.get("stages") != VERSION:
        raise ResultError(
            f"run.dir: {run}; {made.relative_to(run)} in it was made by another version of scopewise (stages "
            f"{inputs.get('stages', 1)}, and {VERSION} are read); name a new folder with --set run.dir=…, or add --overwrite "
            "instead of --resume to overwrite the run folder"
        )


def _check_stage(stage: Path, run: Path) -> None:
    """Raise ResultError for a stage of another version, or one whose weight files have changed since it was finished."""
    document = schemas.read(stage / "stage.json", schemas.StageDocument)
    _check_version(document["inputs"], stage, run)
    made = document.get("weights", {})
    found = damage(stage, ResultError)
    for name, size in made.items():
        if found is None and not (stage / name).exists():
            found = f"no {name} in it"
        if found is None and (now := (stage / name).stat().st_size) != size:
            found = f"{name} has {now} bytes, and had {size} when it was finished"
    if found is not None:
        raise ResultError(
            f"run.dir: {stage}; {found}; remove this folder to have it made again, or add --overwrite instead of --resume "
            "to overwrite the run folder"
        )


def _remove_run(path: Path) -> None:
    # Removed last: after a kill in between, --overwrite still recognises the folder as a run.
    for child in sorted(path.iterdir(), key=lambda p: p.name == "config.yaml"):
        if child.name not in (LOCK, HOLDER):
            remove(child)


def _ours(child: Path) -> bool:
    """Return whether a file is only a leftover of a kill, or the lock, so that its folder is not a run."""
    return child.name.endswith(".tmp") or child.name in (LOCK, HOLDER)


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
