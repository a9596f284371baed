"""How threads wait."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from scopewise.threads import wait_asleep


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.setenv(name, "")  # so that what is set is undone
        monkeypatch.delenv(name)


def test_they_sleep_unless_the_environment_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    assert not wait_asleep()
    assert "OMP_WAIT_POLICY" not in os.environ
    monkeypatch.delenv("GOMP_SPINCOUNT")
    assert wait_asleep()
    assert os.environ["OMP_WAIT_POLICY"] == "passive"


def test_the_command_sets_it_before_torch_is_imported() -> None:
    """OpenMP of the command's process says what it took, when torch loads it."""
    code = (
        "import os, sys; sys.argv = ['scopewise', 'list', 'methods']\n"
        "import scopewise.cli\n"
        "assert 'torch' not in sys.modules\n"
        "try:\n    scopewise.cli.main()\nexcept SystemExit:\n    import torch\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment | {"OMP_DISPLAY_ENV": "true"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr
