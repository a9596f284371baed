"""A whole run, compared with OpenUnlearning: what is computed from the measured parts, and what is written for both sides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loading import module_of

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))  # scripts import one another


def test_their_default_run_by_hand() -> None:
    """5 epochs measured: 20 s of training, 3 s of start, suites of 8 and 10 s. Ten epochs, twelve suites: 3 + 40 + 18 + 90."""
    whole_run = module_of(BENCHMARKS / "whole_run.py")
    their = {"wall_seconds": 41.0, "training_seconds": 20.0, "suite_seconds": [8.0, 10.0]}
    our = {"wall_seconds": 16.0, "training_seconds": 10.0}
    found = list(whole_run.compared(their, our, 5).values())
    assert found == [(20, 10), (21, 6), (41, 16), (151, 26)]


def test_an_older_release_reads_the_copy_as_the_newest_reads_the_model(tmp_path: Path) -> None:
    whole_run = module_of(BENCHMARKS / "whole_run.py")
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"rope_parameters": {"rope_theta": 1e5, "rope_type": "default"}}))
    (model / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "TokenizersBackend"}))
    whole_run.readable(model, tmp_path / "copy")
    assert json.loads((tmp_path / "copy" / "config.json").read_text())["rope_theta"] == 1e5
    assert (
        json.loads((tmp_path / "copy" / "tokenizer_config.json").read_text())["tokenizer_class"]
        == "PreTrainedTokenizerFast"
    )
    assert "rope_theta" not in json.loads((model / "config.json").read_text())


def test_files_of_both_sides(tmp_path: Path) -> None:
    """Files of the suite are cut, train rows are whole; without holdout authors, retain rows that the suite does not ask."""
    evaluation = module_of(BENCHMARKS / "evaluation.py")
    source, folder = tmp_path / "source", tmp_path / "folder"
    source.mkdir()
    folder.mkdir()
    for name in ("forget01", "forget01_perturbed", *evaluation.FILES):
        (source / f"{name}.jsonl").write_text("".join(json.dumps({"question": f"{i}?"}) + "\n" for i in range(5)))
    (source / "retain99.jsonl").write_text("".join(json.dumps({"question": f"{i}?"}) + "\n" for i in range(3, 9)))
    evaluation.prepare(source, folder, 2, "forget01", None)
    written = {
        path.stem: [json.loads(line)["question"] for line in path.read_text().splitlines()] for path in folder.iterdir()
    }
    assert written["forget01"] == written["retain_perturbed"] == ["0?", "1?"]
    assert len(written["retain99"]) == 6
    assert written["holdout01"] == ["5?", "6?"]
