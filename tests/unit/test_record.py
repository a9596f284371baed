"""The run folder: a stage is whole or not there, whatever moment a kill chose."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scopewise import record
from scopewise.config import parse_config
from scopewise.errors import ConfigError, ResultError


def folder(path: Path, **how: bool) -> record.RunFolder:
    return record.RunFolder(parse_config({"run": {"dir": str(path)}}), **(how or {"resume": True}))


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


def test_to_keep_and_to_remove_a_run_at_once_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    folder(tmp_path / "run").stage("oracle", {"seed": 0}, "hash", lambda work: {})
    with pytest.raises(ConfigError, match="--resume, --overwrite: both given"):
        folder(tmp_path / "run", resume=True, overwrite=True)
    assert (tmp_path / "run" / "oracle" / "stage.json").exists()


def test_a_place_that_cannot_be_written_is_said_in_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(ResultError, match=r"run\.dir: .*file; a file; name a folder"):
        folder(file)
    with pytest.raises(ResultError, match=r"config\.yaml: cannot be written \(Not a directory\); give a place"):
        folder(file / "run")
    (tmp_path / "taken").mkdir()
    with pytest.raises(ResultError, match="taken: cannot be written"):
        record.write_text(tmp_path / "taken", "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "taken"]  # no temporary file either
    assert file.read_text() == "mine"


def fail(work: Path) -> dict[str, object]:
    raise ConfigError("wrong")


def test_a_run_that_made_nothing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError), folder(tmp_path / "new" / "run") as run:
        run.stage("models/npo", {"seed": 0}, "hash", fail)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there").mkdir()
    with pytest.raises(ConfigError), folder(tmp_path / "there") as run:
        run.stage("models/npo", {"seed": 0}, "hash", fail)
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]  # it was there before


def test_a_run_that_made_something_keeps_it(tmp_path: Path) -> None:
    def second_fails(run: record.RunFolder) -> None:
        run.stage("oracle", {"seed": 0}, "hash", lambda work: {})
        run.stage("target", {"seed": 0}, "hash", fail)

    with pytest.raises(ConfigError), folder(tmp_path / "run") as run:
        second_fails(run)
    assert (tmp_path / "run" / "oracle" / "stage.json").exists()
    (tmp_path / "begun").mkdir()
    folder(tmp_path / "begun")
    with pytest.raises(ConfigError), folder(tmp_path / "begun", resume=True) as run:
        run.stage("target", {"seed": 0}, "hash", fail)
    assert (tmp_path / "begun" / "config.yaml").exists()  # another command's, that this one went on with


def test_an_interrupted_run_stays(tmp_path: Path) -> None:
    def interrupt(work: Path) -> dict[str, object]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), folder(tmp_path / "run") as run:
        run.stage("target", {"seed": 0}, "hash", interrupt)
    assert (tmp_path / "run" / "config.yaml").exists()
