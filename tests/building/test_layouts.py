"""Other layouts of a built benchmark are read by their loaders and libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import load_dataset
from lm_eval.tasks import TaskManager
from typer.testing import CliRunner

from loading import module_of
from scopewise import cli
from scopewise.building.layouts import LAYOUTS
from scopewise.data.load import load_benchmark
from scopewise.data.rows import FORGET, RETAIN, SCOPES, SPLITS, TRAIN, Benchmark

ROOT = Path(__file__).parents[2]
module_of(ROOT / "docs" / "make_cli.py").commands()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("layouts") / "my-bench"
    persons = ROOT / "examples" / "benchmarks" / "persons.yaml"
    layouts = [text for name in LAYOUTS for text in ("--layout", name)]
    done = CliRunner().invoke(cli.app, ["build", str(persons), "--out", str(out), *layouts])
    assert done.exit_code == 0, done.output
    return out


@pytest.fixture(scope="module")
def own(folder: Path) -> Benchmark:
    return load_benchmark("jsonl", str(folder / "rows.jsonl"))


def test_knowundo_is_read_back(folder: Path, own: Benchmark) -> None:
    """The loader has every question and answer of both scopes and splits, in the same order."""
    found = load_benchmark("knowundo", str(folder / "knowundo"))
    for scope in SCOPES:
        for split in SPLITS:
            pairs = [[(row.question, row.answer) for row in one.select(scope, split)] for one in (found, own)]
            assert pairs[0] == pairs[1]
            assert pairs[0]


def test_tofu_is_read_back(folder: Path, own: Benchmark) -> None:
    """Train rows are all of train; val has those with a paraphrase, and the wrong answers of each."""
    found = load_benchmark("tofu", str(folder / "tofu"))
    for scope in SCOPES:
        train = own.select(scope, TRAIN)
        assert [row.question for row in found.select(scope, TRAIN)] == [row.question for row in train]
        asked = [row for row in train if row.paraphrase]
        assert [(r.question, r.paraphrase, r.perturbed) for r in found.select(scope, "val")] == [
            (r.question, r.paraphrase, r.perturbed) for r in asked
        ]
    assert {row.scope for row in found.rows} == {FORGET, RETAIN, "real_authors", "world_facts"}
    asked_of = {
        scope: {row.question for row in found.rows if row.scope == scope} for scope in ("real_authors", "world_facts")
    }
    assert not asked_of["real_authors"] & asked_of["world_facts"]
    assert all(len(row.perturbed) >= 3 for row in found.rows if row.scope in asked_of)
    forget = found.select(FORGET, TRAIN)
    assert any(row.paraphrased_questions for row in forget)


def test_open_unlearning_is_read_by_its_data_sets(folder: Path, own: Benchmark, monkeypatch: Any) -> None:
    """Its `QADataset` calls `datasets.load_dataset(**hf_args)`, in the folder of the checkout."""
    monkeypatch.chdir(folder / "open_unlearning")
    files = sorted(Path("configs/data/datasets").iterdir())
    assert [file.stem for file in files] == [
        f"my_bench_QA_{name}" for name in ("forget", "forget_val", "full", "retain", "retain_val")
    ]
    for file in files:
        ((title, config),) = yaml.safe_load(file.read_text()).items()
        assert title == file.stem
        assert config["handler"] == "QADataset"
        args = config["args"]
        rows = load_dataset(**args["hf_args"], cache_dir=str(folder / "cache"))
        name = title.removeprefix("my_bench_QA_")
        scope, split = (None, None) if name == "full" else (name.removesuffix("_val"), "val" if "_" in name else TRAIN)
        wanted = [row for row in own.select(scope, split) if row.scope in SCOPES]
        assert list(rows[args["question_key"]]) == [row.question for row in wanted]
        assert list(rows[args["answer_key"]]) == [row.answer for row in wanted]


def test_the_harness_finds_the_task(folder: Path, tiny: Any, own: Benchmark) -> None:
    tiny[0].save_pretrained(folder / "model")
    tiny[1].save_pretrained(folder / "model")
    manager = TaskManager(
        include_path=str(folder / "lm_eval"), include_defaults=False,
        metadata={"tokenizer": str(folder / "model"), "max_length": 4096},
    )  # fmt: skip
    task = manager.load(["my_bench"])["tasks"]["my_bench"]
    val = [row for row in own.select(None, "val") if row.scope in SCOPES]
    assert len(list(task.test_docs())) == len(val)


def test_an_unknown_layout(tmp_path: Path) -> None:
    persons = ROOT / "examples" / "benchmarks" / "persons.yaml"
    done = CliRunner().invoke(cli.app, ["build", str(persons), "--out", str(tmp_path / "o"), "--layout", "tofoo"])
    assert done.exit_code == 2
    assert "--layout: 'tofoo'" in done.output
    assert "tofu" in done.output
