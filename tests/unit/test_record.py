"""The run folder: a stage is whole or not there, whatever moment a kill chose."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors import SafetensorError
from safetensors.numpy import save_file

from forks import python
from scopewise import lock
from scopewise.documents import read_json
from scopewise.errors import ConfigError, ResultError
from scopewise.files import remove, write_text
from scopewise.run_file import parse_config
from scopewise.runs.attack import attack_run
from scopewise.runs.folder import RunFolder
from scopewise.runs.stages import VERSION


def folder(path: Path, **how: bool) -> RunFolder:
    return RunFolder(parse_config({"run": {"dir": str(path)}}), **(how or {"resume": True}))


def modes(path: Path) -> dict[str, int]:
    return {str(p.relative_to(path.parent)): stat.S_IMODE(p.stat().st_mode) for p in (path, *path.rglob("*"))}


def test_what_a_kill_left_is_gone_when_the_run_goes_on(tmp_path: Path) -> None:
    run = folder(tmp_path / "run")
    run.begin(tmp_path / "run" / "oracle.partial", {"seed": 0})
    for name in (".results.json.a1b2.tmp", "oracle.partial/.stage.json.c3d4.tmp"):
        (tmp_path / "run" / name).write_text("half")
    done = folder(tmp_path / "run").stage("oracle", {"seed": 0}, "hash", lambda work: {"rows": 3})
    assert {path.name for path in done.iterdir()} == {"stage.json"}
    assert not list((tmp_path / "run").rglob("*.tmp"))


@pytest.mark.parametrize(
    ("made", "now", "settings", "advice"),
    [
        (
            {"finetune": {"num_train_epochs": 3.0}},
            {"finetune": {"num_train_epochs": 2.0}},
            {},
            "add --resume --set finetune.num_train_epochs=3.0, or",
        ),
        ({"seed": 4}, {"seed": 0}, {}, "add --resume --set run.seed=4, or"),
        (
            {"data": {"system": "Be kind."}},
            {"data": {"system": None}},
            {},
            "add --resume --set 'data.system=\"Be kind.\"', or",
        ),
        ({"data": {"content": "a"}}, {"data": {"content": "b"}}, {}, "use those it was made with, or"),
        (
            {"unlearn": {"num_train_epochs": 3.0}},
            {"unlearn": {"num_train_epochs": 2.0}},
            {"bench": {"settings": {"npo": {"num_train_epochs": 2.0}}}},
            "use those it was made with, or",
        ),
    ],
)
def test_a_refused_resume_says_what_goes_on_with_the_results(
    made: Any, now: Any, settings: Any, advice: str, tmp_path: Path
) -> None:
    config = parse_config({"run": {"dir": str(tmp_path / "run")}, **settings})
    with pytest.raises(ResultError) as refused, RunFolder(config, resume=True) as run:
        run.same_inputs(tmp_path / "run" / "target", {"stages": VERSION, **made}, {"stages": VERSION, **now})
    assert advice in str(refused.value)


def _weights(work: Path) -> dict[str, int]:
    (work / "config.json").write_text("{}")
    save_file({"a": np.zeros(5, np.float32), "b": np.zeros(5, np.float32)}, work / "model.safetensors")
    return {}


def _cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def _shorten(file: Path) -> None:
    save_file({"a": np.zeros(5, np.float32)}, file)


@pytest.mark.parametrize("change", [_cut_off, _shorten, Path.unlink])
def test_weights_of_a_finished_stage_that_were_changed(change: Any, tmp_path: Path) -> None:
    """A whole file with a tensor less is found by its size; other commands' stages are looked at before any work."""
    name = "models/npo/paper/seed0"
    with folder(tmp_path / "run") as run:
        made = run.stage(name, {"seed": 0}, "hash", _weights)
    with folder(tmp_path / "run") as run:
        assert run.stage(name, {"seed": 0}, "hash", _weights) == made
    change(made / "model.safetensors")
    with pytest.raises(ResultError, match=r"models/npo/paper/seed0; .*model\.safetensors.*; remove this folder"):
        folder(tmp_path / "run")
    remove(made)
    with folder(tmp_path / "run") as run:
        assert run.stage(name, {"seed": 0}, "hash", _weights) == made


def test_stages_of_another_version_are_not_used_again(tmp_path: Path) -> None:
    """Before any work, with what to do; --overwrite begins anew."""
    with folder(tmp_path / "run") as run:
        made = run.stage("target", {"seed": 0}, "hash", _weights)
    document = json.loads((made / "stage.json").read_text())
    assert document["inputs"].pop("stages") == VERSION
    (made / "stage.json").write_text(json.dumps(document))
    with pytest.raises(ResultError, match=r"target in it was made by another version.*--overwrite"):
        folder(tmp_path / "run")
    with pytest.raises(ResultError, match="another version"), folder(tmp_path / "other") as run:
        run.same_inputs(tmp_path / "other" / "region.json", {"seed": 0}, {"stages": VERSION, "seed": 0})
    with folder(tmp_path / "run", overwrite=True):
        assert not made.exists()


def test_stages_without_a_list_of_weights_have_their_headers_read(tmp_path: Path) -> None:
    with folder(tmp_path / "run") as run:
        made = run.stage("target", {"seed": 0}, "hash", _weights)
    document = json.loads((made / "stage.json").read_text())
    assert document.pop("weights") == {"model.safetensors": (made / "model.safetensors").stat().st_size}
    (made / "stage.json").write_text(json.dumps(document))
    with folder(tmp_path / "run"):
        pass
    _cut_off(made / "model.safetensors")
    with pytest.raises(ResultError, match="cut off"):
        folder(tmp_path / "run")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
def test_all_of_a_run_is_private_whatever_the_umask(umask: int, tmp_path: Path) -> None:
    """Folders 0700, files 0600: what we write, what a library wrote by the umask, and a folder that was there before."""

    def library(work: Path) -> dict[str, int]:
        before = os.umask(0)
        (work / "sub").mkdir()
        (work / "sub" / "model.safetensors").write_text("w")
        os.umask(before)
        return {}

    (tmp_path / "run").mkdir(mode=0o755)
    before = os.umask(umask)
    try:
        with folder(tmp_path / "run") as run:
            assert modes(tmp_path / "run")["run"] == 0o700
            run.stage("models/npo/paper/seed0", {"seed": 0}, "hash", library)
            write_text(tmp_path / "run" / "cache" / "a" / "texts.json", "x")
        assert os.umask(umask) == umask  # left as it was
    finally:
        os.umask(before)
    found = modes(tmp_path / "run")
    assert len(found) >= 11
    assert {mode for name, mode in found.items() if (tmp_path / name).is_dir()} == {0o700}
    assert {mode for name, mode in found.items() if (tmp_path / name).is_file()} == {0o600}


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    """Neither at the name that was used for temporary files, nor at the file's own name."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / f".results.json.{os.getpid()}.tmp").symlink_to(victim)
    (tmp_path / "results.json").symlink_to(victim)
    write_text(tmp_path / "results.json", "new")
    assert victim.read_text() == "mine"
    assert not (tmp_path / "results.json").is_symlink()
    assert (tmp_path / "results.json").read_text() == "new"


def test_temporary_names_cannot_be_foreseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (names.append(Path(a).name), real(a, b)))
    for _ in range(3):
        write_text(tmp_path / "results.json", "x")
    assert len(set(names)) == 3
    assert all(str(os.getpid()) not in name for name in names)


def test_what_was_only_begun_takes_a_corrected_value(tmp_path: Path) -> None:
    """And the stored run file follows; a finished stage does not."""

    def interrupted(work: Path) -> dict[str, Any]:
        (work / "checkpoints").mkdir()
        raise KeyboardInterrupt

    run = folder(tmp_path / "run")
    run.stage("target", {"seed": 0}, "hash", lambda work: {})
    with pytest.raises(KeyboardInterrupt):
        run.stage("models/npo", {"learning_rate": 1.0}, "hash", interrupted)
    other = parse_config({"run": {"dir": str(tmp_path / "run")}, "unlearn": {"learning_rate": 0.5}})
    again = RunFolder(other, resume=True)
    seen = []
    with pytest.raises(ResultError, match="seed was 0, now 1"):
        again.stage("target", {"seed": 1}, "hash", lambda work: {})
    assert stored(tmp_path / "run")["unlearn"]["learning_rate"] == 5e-5  # what is there was made with this one
    made = again.stage(
        "models/npo", {"learning_rate": 0.5}, "hash", lambda work: seen.extend(p.name for p in work.iterdir()) or {}
    )
    assert seen == ["inputs.json"]  # no checkpoint of the other setting
    assert read_json(made / "stage.json", ResultError)["inputs"] == {"stages": VERSION, "learning_rate": 0.5}
    assert stored(tmp_path / "run")["unlearn"]["learning_rate"] == 0.5


def stored(path: Path) -> Any:
    return yaml.safe_load((path / "config.yaml").read_text())


def test_a_disk_that_is_full_is_one_sentence_and_the_run_goes_on(tmp_path: Path) -> None:
    """By what each library raises: the system's own error, safetensors', the tokenizers', and torch's."""
    with pytest.raises(OSError, match="No space left"), open("/dev/full", "wb", buffering=0) as full:
        full.write(b"x")
    errors = [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        Exception("File too large (os error 27)"),
        RuntimeError("[enforce fail at inline_container.cc:858] . PytorchStreamWriter failed writing file data/2"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 131584 vs 131476"),
    ]
    for error in errors:

        def build(work: Path, error: Exception = error) -> dict[str, Any]:
            raise error

        with pytest.raises(ResultError, match=r"run; .*make room"), folder(tmp_path / "run") as run:
            run.stage("target", {"seed": 0}, "hash", build)
    with pytest.raises(OSError, match="other"), folder(tmp_path / "run") as run:
        run.stage("target", {"seed": 0}, "hash", lambda work: exec("raise OSError(errno.EIO, 'other')", globals()))
    with folder(tmp_path / "run") as run:
        assert run.stage("target", {"seed": 0}, "hash", lambda work: {}).name == "target"


@pytest.mark.parametrize("kind", ["below a file", "too long", "a loop of links", "read-only"])
def test_a_path_that_is_none_is_said_in_a_sentence(kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    path = {
        "below a file": tmp_path / "file" / "run",
        "too long": tmp_path / ("x" * 300),
        "a loop of links": tmp_path / "loop" / "run",
        "read-only": Path("/proc/run"),
    }[kind]
    with pytest.raises(ResultError, match=r"^run\.dir: "):
        folder(path)
    with pytest.raises(ResultError):
        write_text(path, "x") if kind != "below a file" else write_text(path / "x", "x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "loop"]


HOLD = """
import sys
from scopewise.run_file import parse_config
from scopewise.runs.folder import RunFolder
run = RunFolder(parse_config({"run": {"dir": sys.argv[1]}}), resume=True)
print("held", flush=True)
sys.stdin.read()
"""


def held(path: Path) -> subprocess.Popen[str]:
    """Start another process that works on a run."""
    words = [sys.executable, "-c", HOLD, str(path)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_one_process_at_a_time_works_on_a_run(tmp_path: Path) -> None:
    """The other is named; a job of its bench may work beside it; a kill -9 leaves nothing that blocks."""
    process = held(tmp_path / "run")
    try:
        for how in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(ResultError, match=rf"^run\.dir: .* in use by process {process.pid} on "):
                folder(tmp_path / "run", **how)
        assert (tmp_path / "run" / "config.yaml").exists()
        with pytest.raises(ResultError, match="in use by process"):
            attack_run(parse_config({"run": {"dir": str(tmp_path / "run")}}))
        token = str(lock.holder(tmp_path / "run")["token"])
        config = parse_config({"run": {"dir": str(tmp_path / "run")}})
        RunFolder(config, resume=True, joins=token).stage("base", {}, "hash", lambda work: {})
        with pytest.raises(ResultError, match=r"run\.dir: "):
            RunFolder(config, resume=True, joins="another")
    finally:
        process.kill()
        process.communicate()
    with folder(tmp_path / "run"):
        assert lock.holder(tmp_path / "run")["pid"] == os.getpid()
        with folder(tmp_path / "run"):  # within a process it may be opened again, as in a notebook
            assert lock.holder(tmp_path / "run")["pid"] == os.getpid()
        assert lock.holder(tmp_path / "run")["pid"] == os.getpid()
    assert lock.holder(tmp_path / "run") == {}


def test_the_lock_ends_with_the_block_also_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), folder(tmp_path / "run"):
        raise RuntimeError
    process = held(tmp_path / "run")
    process.communicate("")
    assert process.returncode == 0


def test_a_finished_stage_is_not_made_again_and_not_with_other_inputs(tmp_path: Path) -> None:
    run = folder(tmp_path / "run")
    run.stage("oracle", {"seed": 0}, "hash", lambda work: {"rows": 3})
    made = run.stage("oracle", {"seed": 0}, "hash", lambda work: pytest.fail("made again"))
    assert read_json(made / "stage.json", ResultError)["rows"] == 3
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
    with pytest.raises(ResultError, match=r"^run\.dir: .*cannot be written \(Not a directory\)"):
        folder(file / "run")
    (tmp_path / "taken").mkdir()
    with pytest.raises(ResultError, match="taken: cannot be written"):
        write_text(tmp_path / "taken", "x")
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
    def second_fails(run: RunFolder) -> None:
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


def test_a_checkpoint_on_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    """By a real limit on the size of files, in a process of its own: torch's own error when it saves tensors."""
    script = """
import resource, sys, torch
from scopewise.run_file import parse_config
from scopewise.runs.folder import RunFolder
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
with RunFolder(parse_config({"run": {"dir": sys.argv[1]}})) as run:
    run.stage("target", {}, "hash", lambda work: torch.save(torch.zeros(50_000), work / "optimizer.pt"))
"""
    words = [python(), "-c", script, str(tmp_path / "run")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "ResultError: run.dir: " in done.stderr.splitlines()[-1]
