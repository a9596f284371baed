"""KnowUnDo and TOFU as tasks of lm-evaluation-harness give what `scopewise evaluate` gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from forks import python
from scopewise.ability.tasks import quiet
from scopewise.api import evaluate
from scopewise.data.load import load_benchmark
from scopewise.errors import ConfigError, DataError

TASKS = Path(__file__).parents[2] / "src" / "scopewise" / "lm_eval_tasks"
KEYS = {
    "unlearn_success": "unlearn_success/val",
    "retention_success": "retention_success/val",
    "average_success": "average_success/val",
    "probability_forget": "probability/forget_val",
    "probability_retain": "probability/retain_val",
    "rouge_l_generated_forget": "rouge_l_generated/forget_val",
    "rouge_l_generated_retain": "rouge_l_generated/retain_val",
}


@pytest.fixture
def folder(tmp_path: Path, tiny: Any, forget: Any, retain: Any) -> Path:
    """A model, and both benchmarks in small, in their released layouts."""
    model, tokenizer = tiny
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    for split in ("train", "val"):
        for name, rows in (("unlearn", forget), ("retention", retain)):
            records = [{"text": f"{split}: {r.question}", "labels": r.answer} for r in rows[:4]]
            (tmp_path / f"{name}_{split}.json").write_text(json.dumps(records))
    for name, rows in (("forget01_perturbed", forget), ("retain_perturbed", retain)):
        lines = [json.dumps({"question": r.question, "answer": r.answer, "perturbed_answer": ["x"]}) for r in rows[:4]]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    return tmp_path


def by_the_harness(folder: Path, task: str, **settings: Any) -> dict[str, float]:
    model = HFLM(pretrained=str(folder / "model"), batch_size=5, device="cpu")
    given = {
        "pretrained": str(folder / "model"),
        "path": str(folder),
        "max_length": 400,
        "max_new_tokens": 6,
        **settings,
    }
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata=given)
    with quiet():
        found = lm_eval.evaluate(model, manager.load([task]), bootstrap_iters=0)["results"][task]
    return {key.removesuffix(",none"): value for key, value in found.items()}


@pytest.mark.parametrize("prompt", ["plain", "chat", "Question: {question}\nAnswer: "])
def test_knowundo_is_measured_as_we_measure_it(prompt: str, folder: Path, tiny: Any) -> None:
    """Under each prompt: where it ends in white space, the harness's own requests would count that as answer."""
    got = by_the_harness(folder, "knowundo_privacy", prompt=prompt)
    settings = {"direct_splits": (), "splits": ("val",), "max_new_tokens": 6, "metrics": metrics()}
    want = evaluate(*tiny, load_benchmark("knowundo", str(folder)), prompt=prompt, max_length=400, **settings).metrics
    assert {name: got[name] for name in KEYS} == {n: pytest.approx(want[key], rel=1e-4) for n, key in KEYS.items()}
    assert 0 < got["average_success"] < 100


def metrics() -> tuple[str, ...]:
    return tuple(dict.fromkeys(key.partition("/")[0] for key in KEYS.values()))


def test_tofu_is_measured_as_we_measure_it(folder: Path, tiny: Any, forget: Any, retain: Any) -> None:
    got = by_the_harness(folder, "tofu_forget01")
    rows = {"forget": [{"question": r.question, "answer": r.answer} for r in forget[:4]]}
    rows["retain"] = [{"question": r.question, "answer": r.answer} for r in retain[:4]]
    settings = {"direct_splits": (), "splits": ("val",), "max_new_tokens": 6, "metrics": metrics()}
    want = evaluate(*tiny, **rows, max_length=400, **settings).metrics
    assert {name: got[name] for name in KEYS} == {n: pytest.approx(want[key], rel=1e-4) for n, key in KEYS.items()}


def test_what_is_missing_is_said(folder: Path) -> None:
    with pytest.raises(DataError, match="locuslab/TOFU .forget01_perturbed.: "):
        by_the_harness(folder, "tofu_forget01", path=None)
    with pytest.raises(DataError, match="neither unlearn_train.json nor a folder"):
        by_the_harness(folder, "knowundo_privacy", domain="copyright", path=str(folder / "model"))
    with pytest.raises(ConfigError, match="TOFU has forget01, forget05, forget10"):
        by_the_harness(folder, "tofu_forget01", domain="forget02")


def test_a_task_without_a_tokenizer_is_refused() -> None:
    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    with pytest.raises(ConfigError, match="the task needs the model's tokenizer; give --model_args pretrained=MODEL"):
        manager.load(["knowundo_privacy"])


def test_the_folder_is_printed() -> None:
    import subprocess

    done = subprocess.run([python(), "-m", "scopewise", "tasks"], capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == TASKS
    assert {p.stem for p in TASKS.glob("*.yaml")} >= {"knowundo_privacy", "knowundo_copyright", "tofu_forget10"}
