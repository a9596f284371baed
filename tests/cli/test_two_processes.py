"""Evaluation in two processes of accelerate gives what one process gives, and one of them writes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from forks import python

ROOT = Path(__file__).parents[2]
METRICS = (
    "unlearn_success", "retention_success", "average_success", "perplexity", "rouge_l_teacher_forced",
    "rouge_l_generated", "probability", "truth_ratio_raw", "exact_memorization", "extraction_strength", "mia_loss",
    "mia_min_k_plus_plus", "mia_gradnorm",
)  # fmt: skip


@pytest.fixture
def files(tmp_path: Path, tiny: Any, forget: Any, retain: Any) -> Path:
    """A model, rows of both scopes and of the holdout, with paraphrases and wrong answers, and a task of ability."""
    model, tokenizer = tiny
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    rows = [
        {"question": r.question, "answer": r.answer, "scope": r.scope, "split": split}
        | {"paraphrase": f"It is so: {r.answer}", "perturbed": [retain[i].answer, "Nobody knows."]}
        for split in ("train", "val")
        for group in (forget, retain)
        for i, r in enumerate(group[:6])
    ]
    rows += [
        {"question": f"What of {i}?", "answer": f"It is {i}.", "scope": "holdout", "split": "val"} for i in range(4)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    questions = [
        {"question": f"What is {i}?", "choices": {"text": [f"a {i}", "none of it", "x"], "label": ["A", "B", "C"]}}
        | {"answerKey": "ABC"[i % 3]}
        for i in range(9)
    ]
    (tmp_path / "arc_challenge.jsonl").write_text("".join(json.dumps(q) + "\n" for q in questions))
    return tmp_path


def evaluate(
    launcher: list[str], folder: Path, name: str, **more: str
) -> tuple[dict[str, Any], subprocess.CompletedProcess[str]]:
    settings = [
        "data.benchmark=jsonl", f"data.path={folder / 'rows.jsonl'}", "data.max_length=400", "evaluate.splits=[val]",
        "evaluate.direct_splits=[val]", "evaluate.max_new_tokens=6", "evaluate.max_tokens=500",
        f"evaluate.metrics=[{', '.join(METRICS)}]", "evaluate.ability.tasks=[arc_challenge]",
        f"evaluate.ability.path={folder}",
    ]  # fmt: skip
    output = folder / f"{name}.json"
    words = [*launcher, "scopewise", "evaluate", str(folder / "model"), "--json", "-o", str(output)]
    words += ["--cache", str(folder / f"cache-{name}")]
    for setting in settings:
        words += ["--set", setting]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", **more}
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(output.read_text()), done


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables",
    [{}, pytest.param({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, marks=pytest.mark.long)],
    ids=["ddp", "fsdp2"],
)
def test_two_processes_measure_what_one_does(variables: dict[str, str], files: Path) -> None:
    """Every value, every row and every interval; printed and written once. Also where each holds half of the model."""
    alone, _ = evaluate([python(), "-m"], files, "alone")
    # `accelerate launch --cpu` starts several processes through MPI alone; on GPUs it starts them by torchrun, as here.
    launcher = [python(), "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    both, done = evaluate(launcher, files, "both", **variables)
    assert json.loads(done.stdout) == {key: value["value"] for key, value in both["values"].items()}
    assert set(both["values"]) == set(alone["values"]) > {"ability/arc_challenge", "rouge_l_generated/forget_val"}
    for key, value in alone["values"].items():
        for field in ("value", "low", "high"):
            assert both["values"][key][field] == pytest.approx(value[field], abs=1e-6, rel=1e-6), key
        assert both["values"][key]["per_row"] == pytest.approx(value["per_row"], abs=1e-6, rel=1e-6), key
        assert both["values"][key]["skipped"] == value["skipped"]
    # Under the name of the same content: what one process found is known to two that hold the halves of it.
    names = [sorted(path.name for path in (files / f"cache-{how}").iterdir()) for how in ("alone", "both")]
    assert names[0] == names[1] != []
    assert sum(value["value"] is not None for value in alone["values"].values()) > 15
