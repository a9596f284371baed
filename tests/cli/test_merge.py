"""Benches of one run folder add up: rows of other methods, seeds and protocols stay."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from forks import python

SETTINGS = [
    "model.tiny.width=32", "model.tiny.layers=1", "model.tiny.heads=2", "model.tiny.vocab_size=400",
    "finetune.num_train_epochs=0.2", "unlearn.num_train_epochs=0.2", "evaluate.splits=[val]", "evaluate.direct_splits=[]",
    "evaluate.generate_splits=[]", "unlearn.early_stopping.rows=0", "bench.oracle=false",
]  # fmt: skip
BENCHES = [
    ["bench.methods=[gradient_ascent]"],
    ["bench.methods=[npo]"],
    ["bench.methods=[npo]", "bench.seeds=[1]", "evaluate.metrics=[perplexity]"],
    ["bench.methods=[npo]", "bench.protocols=[tuned]", "bench.tune.trials=1"],
    ["bench.methods=[gradient_ascent]"],
]
# In one process, as each would spend most of its time on imports.
SCRIPT = """
import json, shutil, sys
from scopewise.runs.bench import Bench
from scopewise.run_file import load_config
from scopewise.runs.pipeline import Pipeline
folder, settings, benches = sys.argv[1], *map(json.loads, sys.argv[2:])
def bench(more):
    pipeline = Pipeline(load_config("demo", [*settings, f"run.dir={folder}", *more]), resume=True)
    with pipeline.folder:
        return Bench(pipeline).run()
found = [bench(more) for more in benches]
shutil.rmtree(f"{folder}/models/npo")
print(json.dumps([*found, bench(benches[0])]))
"""


def named(results: dict[str, Any]) -> list[tuple[str, str | None, int]]:
    return [(row["method"], row["protocol"], row["seed"]) for row in results["rows"]]


@pytest.mark.slow
def test_rows_of_other_methods_seeds_and_protocols_stay(tmp_path: Path) -> None:
    """Measured as the last bench says; a row goes with the folder of its model."""
    run = tmp_path / "run"
    words = [python(), "-c", SCRIPT, str(run), json.dumps(SETTINGS), json.dumps(BENCHES)]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second, third, tuned, last, removed = json.loads(done.stdout)
    target, ascent, npo = ("target", None, 0), ("gradient_ascent", "paper", 0), ("npo", "paper", 0)
    assert named(first) == [target, ascent]
    assert named(second) == [target, ascent, npo]
    assert second["rows"][1] == first["rows"][1]  # to the last digit
    assert {comparison["method"] for comparison in second["comparisons"]} == {"target", "gradient_ascent", "npo"}
    assert named(third) == [target, ascent, npo, ("npo", "paper", 1)]
    assert {key for row in third["rows"] for key in row["metrics"]} == {
        "perplexity/forget_val",
        "perplexity/retain_val",
    }
    assert named(tuned) == [target, ascent, npo, ("npo", "paper", 1), ("npo", "tuned", 0)]
    assert sorted(named(last)[1:]) == sorted(named(tuned)[1:])
    assert last["tuning"] == tuned["tuning"] != {}
    assert named(removed) == [target, ascent]
    table = (run / "table.md").read_text()
    assert "gradient_ascent" in table
    assert "npo" not in table
