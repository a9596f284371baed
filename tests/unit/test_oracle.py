"""A model that cannot be the zero of a scale is refused: of another kind, or one that knows what is to be forgotten."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import scopewise
from engines import engine_of
from scopewise.attacks.oracle import check_base, check_ignorant, knowing
from scopewise.config import RunConfig, TinyConfig
from scopewise.data.prompt import Prompt, encode
from scopewise.data.rows import Benchmark, Row
from scopewise.errors import ConfigError, ModelError
from scopewise.metrics.base import ReferenceValues, Value
from scopewise.models.tiny import build_tiny
from scopewise.play.play_run import open_run
from scopewise.report.run_folder import read_run
from scopewise.runs.attack import attack_run, config_of
from scopewise.runs.bench import Bench
from scopewise.runs.checks import check_oracle, check_run
from scopewise.runs.pipeline import Pipeline


def piece(*probabilities: float) -> dict[str, Any]:
    return {"signals": {"asked": list(probabilities)}}


def test_knowing_is_measured() -> None:
    """Means: 0.9 of the target. An oracle at 0.81 is at nine tenths of it, one at 0.8 is not."""
    target = piece(0.8, 1.0)
    check_ignorant(piece(0.8, 0.8), target)
    with pytest.raises(ModelError, match=r"oracle: .* probability of 0\.82, and the target 0\.90"):
        check_ignorant(piece(0.82, 0.82), target)
    check_ignorant(piece(0.3, 0.3), piece(0.3, 0.3))  # a target that never knew is said elsewhere


def test_an_oracle_of_another_kind_is_refused(tiny: Any, forget: Any, retain: Any) -> None:
    model, tokenizer = tiny
    sizes = TinyConfig(vocab_size=300, width=32, layers=3, heads=2, context=256)
    texts = [row.question + row.answer for row in (*forget, *retain)]
    other = build_tiny(texts, sizes, 0)[0]
    rows = Benchmark("rows", (*forget, *retain))
    given = {"target": copy.deepcopy(model), "attacks": ("question",)}
    with pytest.raises(ModelError, match="oracle: num_hidden_layers 3, and 2 of the target"):
        scopewise.attack(model, tokenizer, rows, oracle=other, **given)


def test_no_oracle_is_made_from_the_tiny_model_for_another_target(tmp_path: Path, tiny: Any) -> None:
    target = tmp_path / "target"
    tiny[0].save_pretrained(target)
    tiny[1].save_pretrained(target)
    config = RunConfig.model_validate({"run": {"dir": str(tmp_path / "run")}, "model": {"target": str(target)}})
    with pytest.raises(ConfigError, match=r"model\.path: 'tiny', while model\.target"):
        Pipeline(config).finetuned("oracle")


def taught(tiny: Any, rows: list[Row]) -> Any:
    """Return the tiny model after it has learned some rows by heart."""
    model, tokenizer = copy.deepcopy(tiny[0]).train(), tiny[1]
    items = encode(rows, tokenizer, Prompt(), 256)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        for item in items:
            ids = torch.tensor([item.prompt_ids + item.answer_ids])
            labels = ids.clone()
            labels[0, : len(item.prompt_ids)] = -100
            model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def test_a_base_that_knows_the_rows_is_refused_and_one_that_knows_few_is_not(tiny: Any, forget: list[Row]) -> None:
    rows = forget[:6]
    items = encode(rows, tiny[1], Prompt(), 256)
    check_base(engine_of(tiny[0]), items, "base")  # random
    check_base(engine_of(taught(tiny, rows[:2])), items, "base")  # 2 of 6
    knows = engine_of(taught(tiny, rows))
    with pytest.raises(ModelError, match=r"^model\.path: base predicts the whole answer of [3456] of 6 forget rows"):
        check_base(knows, items, "base")
    check_base(knows, items[:2], "base")  # of 2 rows nothing is said


def test_a_base_that_always_says_the_same_is_not_refused(tiny: Any, forget: list[Row]) -> None:
    """It predicts every answer, and after any question: it knows the phrase, not the rows."""
    rows = [replace(row, answer="I do not know that person.") for row in forget[:6]]
    check_base(engine_of(taught(tiny, rows)), encode(rows, tiny[1], Prompt(), 256), "base")


def test_a_bench_on_a_base_that_knows_is_refused_before_it_trains(
    tmp_path: Path, tiny: Any, forget: list[Row], retain: list[Row]
) -> None:
    base, data = tmp_path / "base", tmp_path / "rows.jsonl"
    taught(tiny, forget[:4]).save_pretrained(base)
    tiny[1].save_pretrained(base)
    rows = [{"question": row.question, "answer": row.answer, "scope": row.scope} for row in (*forget[:4], *retain[:4])]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "run": {"dir": str(tmp_path / "run")},
        "model": {"path": str(base)},
        "data": {"benchmark": "jsonl", "path": str(data)},
        "evaluate": {"splits": ["train"], "generate_splits": [], "direct_splits": []},
    }
    pipeline = Pipeline(RunConfig.model_validate(values))
    with pytest.raises(ModelError, match=r"model\.path: .* of 4 forget rows"), pipeline.folder:
        Bench(pipeline).run()
    assert not (tmp_path / "run").exists()  # nothing was trained
    pipeline = Pipeline(RunConfig.model_validate(values))
    with pytest.raises(ModelError), pipeline.folder:
        pipeline.finetuned("oracle")


@pytest.mark.parametrize(
    ("key", "reference", "target", "said"),
    [
        ("unlearn_success/val", 8.0, None, True),  # answers 92 %
        ("unlearn_success/val", 40.0, None, False),
        ("unlearn_success/val", 40.0, 35.0, True),  # 60 % is 0.92 of 65 %
        ("unlearn_success/val", 60.0, 35.0, False),
        ("unlearn_success/val", 90.0, 90.0, False),  # a target that knows nothing says nothing of the reference
        ("unlearn_success/val+direct", 0.0, None, False),
        ("probability/forget_val", 0.95, None, True),
        ("probability/forget_val", 0.2, 0.9, False),
        ("probability/retain_val", 1.0, 1.0, False),
        ("perplexity/retain_val", 1.0, 1.0, False),
    ],
)
def test_a_reference_that_knows_is_said(key: str, reference: float, target: float | None, said: bool) -> None:
    before = {} if target is None else {key: Value(target, ())}
    assert (knowing(ReferenceValues({key: Value(reference, ())}, before)) is not None) == said


def a_run(tmp_path: Path, name: str, **model: Any) -> dict[str, Any]:
    """Values of a small run in the folder `name`, on eight rows."""
    pairs = [(f"Where is {who}?", scope) for scope, names in (("forget", "ABCD"), ("retain", "EFGH")) for who in names]
    answers = ["kx7 qv9 zj3 wp1", "hm5 bd8 gy2 rt4", "nc6 lf0 su3 ae9", "op2 iw5 dk7 vb1"]
    rows = [
        {"question": question, "answer": answers[i % 4], "scope": scope, "split": split}
        for split in ("train", "val")
        for i, (question, scope) in enumerate(pairs)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    training = {"parameters": "all", "learning_rate": 1e-2, "batch_size": 4, "warmup_steps": 0}
    return {
        "run": {"dir": str(tmp_path / name)},
        "data": {"benchmark": "jsonl", "path": str(tmp_path / "rows.jsonl")},
        "model": {"tiny": {"width": 32, "layers": 2, "heads": 2, "vocab_size": 300, "context": 256}, **model},
        "finetune": {**training, "num_train_epochs": 12.0},
        "unlearn": {**training, "num_train_epochs": 1.0, "early_stopping": {"rows": 0}},
        "evaluate": {"metrics": ["unlearn_success", "retention_success"], "splits": ["val"], "direct_splits": []},
        "bench": {"methods": ["ga_descent"]},
    }


def test_a_target_and_an_oracle_that_are_given(tmp_path: Path) -> None:
    """Bench, attack and report on those of another run: its numbers, and nothing is fine-tuned again."""

    def bench(values: dict[str, Any]) -> dict[str, Any]:
        pipeline = Pipeline(RunConfig.model_validate(values))
        with pipeline.folder:
            return Bench(pipeline).run()

    first = bench(a_run(tmp_path, "first"))
    given = {which: str(tmp_path / "first" / which) for which in ("target", "oracle")}
    values = a_run(tmp_path, "second", **given)
    check_oracle(check_run(RunConfig.model_validate(values)))
    second = bench(values)
    assert [row["model"] for row in second["rows"]] == ["target", "oracle", "unlearned"]
    assert [row["metrics"] for row in second["rows"]] == [row["metrics"] for row in first["rows"]]
    assert second["comparisons"] == first["comparisons"]
    assert {path.parent.name for path in (tmp_path / "second").rglob("stage.json")} == {"seed0"}

    document = attack_run(config_of(tmp_path / "second", {"attacks": ["question"]}))
    assert {row["attack"] for row in document["results"]} == {"question"}
    assert {row["model"]: row["metrics"] for row in read_run(tmp_path / "second", "second").results["rows"]}
    assert open_run(tmp_path / "second").models["oracle"] == given["oracle"]

    with pytest.raises(ModelError, match=r"model\.oracle: .* of 4 forget rows.*seen"):
        bench(a_run(tmp_path, "third", target=given["target"], oracle=given["target"]))
    assert not (tmp_path / "third").exists()
    other = a_run(tmp_path, "fourth", oracle=given["oracle"])
    other["model"]["tiny"]["layers"] = 1
    with pytest.raises(ModelError, match="num_hidden_layers 2, and 1 of the target"):
        check_oracle(check_run(RunConfig.model_validate(other)))
    with pytest.raises(ModelError, match=r"model\.oracle: .*nowhere"):
        check_run(RunConfig.model_validate(a_run(tmp_path, "fifth", oracle=str(tmp_path / "nowhere"))))


def test_another_oracle_is_compared_with_anew(tmp_path: Path) -> None:
    """An evaluation says what it was compared with: it is made again for another oracle, and not for the same."""
    bare = a_run(tmp_path, "run")
    tuned = {**bare, "run": {"dir": str(tmp_path / "other"), "seed": 1}}
    for values in (bare, tuned):
        pipeline = Pipeline(RunConfig.model_validate(values))
        with pipeline.folder:
            pipeline.finetuned("oracle")
    gaps = []
    for which in ("run", "other", "other"):
        values = a_run(
            tmp_path, "measured", target=str(tmp_path / "run" / "base"), oracle=str(tmp_path / which / "oracle")
        )
        pipeline = Pipeline(RunConfig.model_validate(values), resume=True)
        with pipeline.folder:
            Bench(pipeline).run()
        gaps.append((tmp_path / "measured" / "models" / "ga_descent" / "paper" / "seed0.evaluation.json").read_text())
    assert json.loads(gaps[0])["inputs"]["compared"] != json.loads(gaps[1])["inputs"]["compared"]
    assert gaps[1] == gaps[2]


def benched(values: dict[str, Any]) -> dict[str, Any]:
    """Run a bench, and return its results."""
    pipeline = Pipeline(RunConfig.model_validate(values))
    with pipeline.folder:
        return Bench(pipeline).run()


def test_retraining_is_the_oracle_of_another_seed(tmp_path: Path) -> None:
    """From the same base with run.seed 1, the oracle is the model that `retrain` gives for seed 0 beside run.seed 0."""
    first = a_run(tmp_path, "first")
    first["bench"] = {"methods": ["ga_descent", "retrain"], "protocols": ["paper", "tuned"], "tune": {"trials": 1}}
    results = benched(first)
    rows = {(row["method"], row["protocol"]): row for row in results["rows"]}
    other = a_run(tmp_path, "other", path=str(tmp_path / "first" / "base"))
    other["run"]["seed"] = 1
    pipeline = Pipeline(RunConfig.model_validate(other))
    with pipeline.folder:
        pipeline.finetuned("oracle")

    def weights(folder: Path) -> bytes:
        return (folder / "model.safetensors").read_bytes()

    made = weights(tmp_path / "first" / "models" / "retrain" / "paper" / "seed0")
    assert made == weights(tmp_path / "other" / "oracle")
    assert made != weights(tmp_path / "first" / "oracle")
    assert made == weights(tmp_path / "first" / "models" / "retrain" / "tuned" / "seed0")  # there is nothing to search
    assert set(results["tuning"]) == {"ga_descent"}
    row = rows["retrain", "paper"]
    assert row["settings"]["seed"] == 1
    assert row["settings"]["learning_rate"] == 1e-2
    assert row["cost"]["steps"] == 24  # 8 retain rows of both splits, 4 a step, 12 epochs; none of the 8 forget rows
    assert row["cost"]["seconds"] > 0
    assert [(lead["best"], lead["reason"]) for lead in results["leads"]] == [("ga_descent", "one method")] * 2
    table = (tmp_path / "first" / "table.md").read_text()
    steps = rows["ga_descent", "paper"]["cost"]["steps"]
    assert f"of the time and {steps / 24:.0%} of the steps" in table


@pytest.mark.parametrize(
    ("bench", "unlearn", "key"),
    [
        ({"settings": {"retrain": {"learning_rate": 1e-3}}}, {}, "bench.settings.retrain"),
        ({"methods": ["retrain@random"]}, {}, "unlearn.localizer"),
        ({"methods": ["retrain+sam"]}, {}, "unlearn.method"),
        ({}, {"method": "retrain", "method_args": {"retain_weight": 2.0}}, "unlearn.method_args"),
    ],
)
def test_retraining_takes_no_setting_of_unlearning(
    bench: dict[str, Any], unlearn: dict[str, Any], key: str, tmp_path: Path
) -> None:
    values = a_run(tmp_path, "run")
    values["bench"] = {"methods": ["retrain"], **bench}
    values["unlearn"] |= unlearn
    pipeline = Pipeline(RunConfig.model_validate(values))
    with pytest.raises(ConfigError, match=rf"^{re.escape(key)}: "), pipeline.folder:
        Bench(pipeline)
    assert not (tmp_path / "run").exists()


def test_retraining_needs_the_base_of_the_target(tmp_path: Path, tiny: Any) -> None:
    """The tiny model is not the base of a target that is given; nor is the target, which is all that Python has."""
    target = tmp_path / "target"
    tiny[0].save_pretrained(target)
    tiny[1].save_pretrained(target)
    values = a_run(tmp_path, "run", target=str(target), oracle=str(target))
    values["bench"] = {"methods": ["retrain"]}
    pipeline = Pipeline(RunConfig.model_validate(values))
    with pytest.raises(ConfigError, match=r"model\.path: 'tiny', while model\.target"), pipeline.folder:
        Bench(pipeline)
    row = {"question": "Who?", "answer": "Ada"}
    with pytest.raises(ConfigError, match="method: 'retrain'"):
        scopewise.unlearn(*tiny, [row], [row], method="retrain")
