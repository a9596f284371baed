"""The benchmark of `scopewise build`, in small: linear time, bounded memory, and a whole result."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from forks import python

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_the_script_writes_sizes_and_a_plot(tmp_path: Path) -> None:
    words = [python(), str(BENCHMARKS / "building.py"), "--sizes", "20,60", "--out", "b.json", "--plot", "b.svg"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    small, large = json.loads((tmp_path / "b.json").read_text())["sizes"]
    assert (small["kept"], large["kept"]) == (20, 60)
    assert 2.5 < large["rows"] / small["rows"] < 3.5  # three times as many persons, besides the neighbours
    assert large["cpu_seconds"] < 10 * max(small["cpu_seconds"], 0.1)
    assert (tmp_path / "b.svg").read_text().startswith("<?xml")


def test_the_recorded_growth_is_linear() -> None:
    """From 1,000 to 10,000 instances, CPU time and memory per 1,000 grow by less than a fifth; quadratic would be tenfold."""
    sizes = json.loads((BENCHMARKS / "results" / "building.json").read_text())["sizes"]
    first, last = sizes[0], sizes[-1]
    assert last["instances"] >= 10 * first["instances"]
    assert last["cpu_seconds_per_1000"] < 1.2 * first["cpu_seconds_per_1000"]
    assert last["megabytes_per_1000"] < 1.2 * first["megabytes_per_1000"]
    assert all(one["passed"] for one in last["first_words"].values())
