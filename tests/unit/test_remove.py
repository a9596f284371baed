"""A folder that is removed stands whole under its name, or not at all, whenever the process is killed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from scopewise.errors import ResultError
from scopewise.files import check_writable, remove

FILES = 400


def test_a_kill_leaves_no_part(tmp_path: Path) -> None:
    parts = 0
    for attempt in range(40):
        folder = tmp_path / f"folder{attempt}"
        (folder / "inner").mkdir(parents=True)
        for number in range(FILES):
            (folder / "inner" / str(number)).touch()
        pid = os.fork()
        if pid == 0:
            try:
                remove(folder)
            finally:
                os._exit(0)
        time.sleep(attempt * 0.0003)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert not folder.exists() or len(list((folder / "inner").iterdir())) == FILES
        left = list(tmp_path.glob(".folder*.tmp"))
        parts += any(len(list(path.rglob("*"))) <= FILES for path in left)
        for path in left:
            remove(path)
            assert not path.exists()
    assert parts, "no kill came while a folder was being emptied"


def test_a_link_is_removed_and_not_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    remove(tmp_path / "link")
    remove(tmp_path / "nothing")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "there"]


def test_what_cannot_be_written_is_said_before_the_work_and_leaves_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "folder" / "file.json")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("pool")
    (tmp_path / "pool").symlink_to("loop")
    for wrong in ("file/x", "file/x/y", "loop/x"):
        with pytest.raises(ResultError, match="--output"):
            check_writable(tmp_path / wrong, "--output")
