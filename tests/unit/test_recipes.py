"""Recipes: settings under one name, relative to the fine-tuning; and the retain rows that they train on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scopewise.config import RunConfig
from scopewise.errors import ConfigError
from scopewise.recipes import RECIPES
from scopewise.run_file import load_config
from scopewise.runs import pipeline as stages
from scopewise.runs.bench import Bench, section_of
from scopewise.runs.pipeline import BenchEntry, Pipeline

ROWS = [
    {
        "question": f"Where is {name}{n}?",
        "answer": f"In {name} {n}.",
        "scope": scope,
        "split": "val" if n == 3 else "train",
    }
    for n in range(4)
    for name, scope in (("A", "forget"), ("B", "retain"))
]
TAUGHT = [
    "finetune.parameters=all",
    "finetune.learning_rate=3e-3",
    "finetune.num_train_epochs=6",
    "finetune.batch_size=4",
]
SMALL = [
    *TAUGHT, "data.benchmark=jsonl", "data.path=rows.jsonl", "run.dir=out", "unlearn.early_stopping.rows=0",
    "model.tiny={width: 16, layers: 1, heads: 2, vocab_size: 300, context: 256}", "bench.oracle=false",
    "evaluate.splits=[val]", "evaluate.direct_splits=[]", "evaluate.metrics=[unlearn_success, retention_success]",
]  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_takes_the_settings_of_fine_tuning(name: str) -> None:
    made = load_config(None, [*TAUGHT, f"unlearn.method={name.replace('_', '-')}"]).unlearn
    assert made.method == RECIPES[name].method
    assert (made.parameters, made.learning_rate, made.batch_size, made.retain_rows) == ("all", 3e-3, 4, "taught")
    assert made.num_train_epochs == pytest.approx(6 * RECIPES[name].epochs)
    assert made.wrapper_args == RECIPES[name].wrapper_args


def test_given_settings_win() -> None:
    made = load_config(None, [*TAUGHT, "unlearn.method=reset_fast", "unlearn.learning_rate=1e-5"]).unlearn
    assert (made.learning_rate, made.batch_size) == (1e-5, 4)
    config = load_config(
        None, [*TAUGHT, "bench.methods=[reset-fast, npo]", "bench.settings={reset-fast: {batch_size: 2}}"]
    )
    assert section(config, "reset_fast").batch_size == 2
    assert section(config, "reset_fast").learning_rate == 3e-3
    assert section(config, "npo").retain_rows == "train"


def section(config: RunConfig, name: str) -> Any:
    return section_of(config, BenchEntry.parse(name), "tuned")


def test_a_recipe_has_no_localizer() -> None:
    with pytest.raises(ConfigError, match=r"bench\.methods: 'reset-fast@gradient'"):
        load_config(None, ["bench.methods=[reset-fast@gradient]"])


def test_one_recipe_is_the_default() -> None:
    assert [name for name, recipe in RECIPES.items() if recipe.default] == ["reset_robust"]


@pytest.mark.parametrize(("rows", "count"), [("train", 3), ("taught", 4)])
def test_the_retain_rows(rows: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of train, and one of val, which the target was taught too. The forget row of val is never trained on."""
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    counts, train = [], stages.train

    def counted(*given: Any, **named: Any) -> Any:
        if "retain_dataset" in named:
            counts.append((len(named["forget_dataset"]), len(named["retain_dataset"])))
        return train(*given, **named)

    monkeypatch.setattr(stages, "train", counted)
    made = [
        f"unlearn.retain_rows={rows}",
        "unlearn.parameters=all",
        "unlearn.num_train_epochs=1",
        "bench.methods=[wga]",
    ]
    run = Pipeline(load_config(None, [*SMALL, *made]))
    with run.folder:
        Bench(run).run()
    assert counts == [(3, count)]


def test_a_bench_of_a_recipe_searches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    run = Pipeline(load_config(None, [*SMALL, "bench.methods=[reset-fast]", "bench.protocols=[tuned]"]))
    with run.folder:
        results = Bench(run).run()
    assert results["tuning"] == {}
    assert [row["method"] for row in results["rows"]] == ["target", "reset_fast"]
    kept = json.loads(Path("out/models/reset_fast/tuned/seed0/stage.json").read_text())
    assert kept["settings"]["wrapper_args"] == {
        "reset": {"alpha": RECIPES["reset_fast"].wrapper_args["reset"]["alpha"]}
    }
    assert kept["settings"]["retain_rows"] == "taught"
