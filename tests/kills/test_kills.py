"""Runs that are killed at random moments end as if nothing had happened: every number, weight and curve."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from forks import python
from kills.killing import content, differences

SCRIPT = Path(__file__).with_name("killing.py")


@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.long)])
def test_killed_runs_end_as_undisturbed_ones(kills: int) -> None:
    done = subprocess.run(
        [python(), str(SCRIPT), "--kills", str(kills)], capture_output=True, text=True, timeout=3000, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.long)])
def test_killed_requests_are_recorded_and_none_is_lost(kills: int, tmp_path: Path) -> None:
    """After each kill the ledger's chain is whole; resumed, each request has all states, a page, and a record that verifies."""
    words = [python(), str(SCRIPT.with_name("forgetting.py")), str(tmp_path), "--kills", str(kills)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=3000, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


def test_a_difference_is_seen(tmp_path: Path) -> None:
    """A changed weight, a number in a document and a missing file; what says when and how long is left out."""
    for name, loss, date in (("a", 1.0, "today"), ("b", 2.0, "tomorrow")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "stage.json").write_text(json.dumps({"curve": [{"loss": loss}], "origin": {"date": date}}))
        (tmp_path / name / "model.safetensors").write_bytes(name.encode())
    (tmp_path / "a" / "table.txt").write_text("here alone")
    found = list(differences(content(tmp_path / "a"), content(tmp_path / "b")))
    assert [text.partition(":")[0] for text in found] == [
        "/model.safetensors",
        "/stage.json/curve[0]/loss",
        "/table.txt",
    ]
