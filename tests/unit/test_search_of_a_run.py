"""The search of a run, on a real tiny model: it says when it looks higher, records each trial, and goes on after a kill."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from loading import module_of
from scopewise import cli
from scopewise.report.table import searches
from scopewise.run_file import load_config
from scopewise.runs.bench import Bench
from scopewise.runs.pipeline import Pipeline

module_of(Path(__file__).parents[2] / "docs" / "make_cli.py").commands()  # registers them

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


SETTINGS = [
    "data.benchmark=jsonl", "data.path=rows.jsonl", "run.dir=out", "bench.methods=[ga_descent]", "bench.oracle=false",
    "model.tiny={width: 16, layers: 1, heads: 2, vocab_size: 300, context: 256}", "finetune.num_train_epochs=1",
    "unlearn.batch_size=2", "unlearn.early_stopping.rows=0", "bench.tune.trials=8", "bench.protocols=[tuned]",
    "bench.tune.learning_rate=[1e-12, 1e-11]", "bench.tune.num_train_epochs=[1, 2]", "bench.tune.extensions=2",
    "evaluate.splits=[val]", "evaluate.direct_splits=[]", "evaluate.metrics=[unlearn_success, retention_success]",
]  # fmt: skip


def pipeline(**given: Any) -> Pipeline:
    """Rates at which nothing moves, so that every extension that is allowed is made: 4, then 4 · 16, in 8 trials."""
    return Pipeline(load_config(None, SETTINGS), **given)


def test_a_search_that_forgot_nothing_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    caplog.set_level(logging.WARNING, logger="scopewise")
    measured = Pipeline.trial

    def killed(self: Pipeline, *given: Any) -> Any:
        if given[-1].endswith("trial5"):
            raise KeyboardInterrupt
        return measured(self, *given)

    def said(what: str) -> int:
        return sum(what in record.getMessage() for record in caplog.records)

    monkeypatch.setattr(Pipeline, "trial", killed)
    first = pipeline()
    with pytest.raises(KeyboardInterrupt), first.folder:
        Bench(first).run()
    assert said("nothing was forgotten in 4 trials; learning rates up to 4e-11") == 1
    monkeypatch.setattr(Pipeline, "trial", measured)
    kept = {path.name: path.read_bytes() for path in Path("out/tuning/ga_descent").glob("*.json")}
    assert sorted(kept) == [f"trial{n}.json" for n in range(5)]
    second = pipeline(resume=True)
    with second.folder:
        results = Bench(second).run()
    assert said("in 4 trials") == 1  # not again
    assert said("nothing was forgotten in 6 trials; learning rates up to 1.6e-10") == 1
    assert said("nothing was forgotten in any of its 8 trials") == 1
    assert all((Path("out/tuning/ga_descent") / name).read_bytes() == content for name, content in kept.items())
    trials = results["tuning"]["ga_descent"]
    assert [trial["extensions"] for trial in trials] == [0] * 4 + [1] * 2 + [2] * 2
    assert all(1e-11 < trial["learning_rate"] <= 4e-11 for trial in trials[4:6])
    (line,) = searches(results)
    assert "the highest Average Success on held-out train rows" in line
    assert "extended upward 2 times" in line
    (chosen,) = (n for n, trial in enumerate(trials) if trial["chosen"])
    assert line.startswith(f"ga_descent: trial {chosen} of 8")
    assert line in Path("out/table.md").read_text()


def test_the_trials_are_shown_beside_what_the_target_and_the_oracle_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three train rows of a scope one is held out; the oracle stands there if the trials are chosen by it."""
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    changes = [*SETTINGS, "bench.tune.trials=1", "bench.oracle=true", "bench.tune.choose=oracle"]
    done = CliRunner().invoke(cli.app, ["tune", *(word for change in changes for word in ("--set", change))])
    assert done.exit_code == 0, done.output
    first = done.stdout.splitlines()[0]
    assert first.startswith(
        "held out: 1 forget and 1 retain rows of train, random ones; Unlearn / Retention there: target "
    )
    kept = [json.loads(Path(f"out/tuning/{which}.json").read_text()) for which in ("target", "oracle")]
    target, oracle = (f"{one['unlearn_success']:.2f} / {one['retention_success']:.2f}" for one in kept)
    assert first.endswith(f"target {target}, oracle {oracle}")
    assert len(json.loads(Path("out/tuning.json").read_text())["ga_descent"]) == 1
