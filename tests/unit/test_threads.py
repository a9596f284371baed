"""How threads wait."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scopewise.threads import SPINS, wait_briefly

NAMES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that what is set is undone
        monkeypatch.delenv(name)


@pytest.mark.parametrize("name", NAMES)
def test_they_spin_briefly_unless_the_environment_says_otherwise(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "7")
    before = dict(os.environ)
    assert not wait_briefly()
    assert dict(os.environ) == before
    monkeypatch.delenv(name)
    assert wait_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == str(SPINS)


def test_the_command_sets_it_before_torch_is_imported() -> None:
    """OpenMP of the command's process says what it took, when torch loads it."""
    torch = importlib.util.find_spec("torch")
    assert torch is not None
    assert torch.origin is not None
    if not list(Path(torch.origin).parent.glob("lib/libgomp*")):
        pytest.skip("this torch does not bring GNU's OpenMP")
    code = (
        "import sys; sys.argv = ['scopewise', 'list', 'methods']\n"
        "import scopewise.cli\n"
        "assert 'torch' not in sys.modules\n"
        "try:\n    scopewise.cli.main()\nexcept SystemExit:\n    import torch\n"
    )
    environment = {key: value for key, value in os.environ.items() if key not in NAMES}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment | {"OMP_DISPLAY_ENV": "verbose"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"GOMP_SPINCOUNT = '{SPINS}'" in done.stderr
