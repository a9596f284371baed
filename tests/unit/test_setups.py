"""The script that compares the ways to unlearn what LoRA taught, in small; and its figures by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loading import module_of
from scopewise.models.load import adapter_base

SETUPS = module_of(Path(__file__).parents[2] / "benchmarks" / "setups.py")


def row(method: str, way: str, average: float, target_seed: int = 0) -> dict[str, Any]:
    metrics = dict(zip(SETUPS.KEYS, (average - 1, average + 1, average), strict=True))
    return {"method": method, "way": way, "seed": 0, "target_seed": target_seed, "metrics": metrics}


def test_differences_are_paired_by_target() -> None:
    """90 - 80 and 70 - 62: mean 9, standard error 1, t(1 - .025 / 3; 1) = 38.19. Target and oracle are counted once."""
    rows = [row("oracle", way, 95) for way in SETUPS.WAYS]
    for way in SETUPS.WAYS:
        for seed, (gradient, control) in enumerate([(90, 80), (70, 62)]):
            rows += [row("memflex@random", way, control, seed), row("memflex", way, gradient, seed)]
            rows.append(row("memflex@all", way, 50, seed))
    found = SETUPS.summary(rows)
    assert found["gradient - random, Average"]["fresh"] == [10, 8]
    text = SETUPS.markdown({**found, "warnings": []})
    assert "| oracle | 94.00 | 96.00 | 95.00 |" in text
    assert "| fresh, gradient | 79.00 ± 14.14 | 81.00 ± 14.14 | 80.00 ± 14.14 |" in text
    assert "- continued: gradient - random region: Average +9.00 [-29.19, +47.19], 2 pairs" in text
    assert SETUPS.difference([1.5]) == "+1.50, 1 pair"


@pytest.mark.slow
def test_each_way_runs_on_the_same_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = [
        "model.tiny={width: 32, layers: 1, heads: 2, vocab_size: 400}", "model.path=tiny", "data.benchmark=builtin",
        "data.domain=null",
        "finetune.num_train_epochs=2",
        "finetune.learning_rate=0.05", "unlearn.num_train_epochs=0.2", "unlearn.early_stopping.rows=0", "bench.seeds=[0]",
        "evaluate.direct_splits=[]", "evaluate.generate_splits=[]",
        "evaluate.metrics=[unlearn_success, retention_success, average_success]",
    ]  # fmt: skip
    words = [word for change in changes for word in ("--set", change)]
    out = tmp_path / "found.json"
    SETUPS.main([str(tmp_path), "--targets", "1", "--out", str(out), *words])
    found = json.loads(out.read_text())
    assert set(found["models"]) == {"target", "oracle", *(f"{w}, {r}" for w in SETUPS.WAYS for r in SETUPS.REGIONS)}
    shown = capsys.readouterr().out
    assert "| continued, gradient |" in shown
    assert "**Warning:** Target 0: The target hardly knows what is to be forgotten" in shown
    models = {way: tmp_path / "target0" / way / "models/memflex/paper/seed0" for way in SETUPS.WAYS}
    assert Path(str(adapter_base(models["continued"]))).name == "base"
    assert Path(str(adapter_base(models["fresh"]))).name == "merged"
    assert adapter_base(models["all"]) is None
