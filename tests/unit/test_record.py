"""The run folder: a stage is whole or not there, whatever moment a kill chose."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scopewise import record
from scopewise.config import parse_config
from scopewise.errors import ResultError


def folder(path: Path) -> record.RunFolder:
    return record.RunFolder(parse_config({"run": {"dir": str(path)}}), resume=True)


def test_a_kill_between_writing_and_renaming_leaves_nothing_in_the_finished_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace

    def killed(source: object, target: object) -> None:
        if str(target).endswith("inputs.json"):
            raise KeyboardInterrupt
        real(source, target)  # type: ignore[arg-type]

    run = folder(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        patch.setattr(os, "getpid", lambda: 1)  # another process, whose temporary files no later write takes over
        with pytest.raises(KeyboardInterrupt):
            run.stage("oracle", {"seed": 0}, "hash", lambda work: {})
    assert list((tmp_path / "run").rglob("*.tmp"))  # what the kill left
    done = folder(tmp_path / "run").stage("oracle", {"seed": 0}, "hash", lambda work: {"rows": 3})
    assert {path.name for path in done.iterdir()} == {"stage.json"}


def test_a_finished_stage_is_not_made_again_and_not_with_other_inputs(tmp_path: Path) -> None:
    run = folder(tmp_path / "run")
    run.stage("oracle", {"seed": 0}, "hash", lambda work: {"rows": 3})
    made = run.stage("oracle", {"seed": 0}, "hash", lambda work: pytest.fail("made again"))
    assert record.read_json(made / "stage.json")["rows"] == 3
    with pytest.raises(ResultError, match="seed was 0, now 1"):
        run.stage("oracle", {"seed": 1}, "hash", lambda work: {})
