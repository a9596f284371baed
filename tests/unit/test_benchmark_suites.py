"""The public benchmarks: their prompt formats, suites and measures, and a run of each kind."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from forks import python
from hub_folders import NAMES, load, tofu
from scopewise import registry
from scopewise.config import EvaluateSection
from scopewise.data.load import with_suite
from scopewise.data.prompt import encode
from scopewise.data.rows import FORGET, RETAIN, VAL, Benchmark
from scopewise.evaluation import evaluate
from scopewise.metrics.aggregates import TaskAggregate
from scopewise.metrics.base import Value
from scopewise.metrics.rouge import summary_recall
from scopewise.models.engine import Engine
from scopewise.run_file import parse_config

ROOT = Path(__file__).parents[2]


# --- how they are put and measured --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_suite_and_format_hold_where_the_run_file_says_nothing(name: str) -> None:
    loader = registry.lookup("benchmarks", name)
    config = with_suite(parse_config({"data": {"benchmark": name}}))
    assert config.data.prompt == loader.data["prompt"]
    assert config.evaluate.metrics == loader.suite["metrics"]
    assert config.evaluate.direct_splits == ()
    own = {"data": {"benchmark": name, "prompt": "chat"}, "evaluate": {"metrics": ["perplexity"], "eos": False}}
    config = with_suite(parse_config(own))
    assert (config.data.prompt, config.evaluate.metrics) == ("chat", ("perplexity",))
    assert config.evaluate.eos is False
    assert with_suite(config) == config


@pytest.mark.parametrize("name", NAMES)
def test_documented_with_a_heading_of_its_own(name: str) -> None:
    document = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {name}$.*?(?=^## |\Z)", document, re.MULTILINE | re.DOTALL)
    assert section is not None
    loader = registry.lookup("benchmarks", name)
    assert all(metric in section[0] for metric in loader.suite["metrics"])
    assert all(part in section[0] for part in (*loader.domains, *loader.suite.get("parts", ())))
    assert f"`{json.dumps(loader.data['prompt'], ensure_ascii=False)}`" in section[0]


MEASURED = {
    "tofu": {
        "truth_ratio_forget/val",
        "truth_ratio_retain/world_facts_val",
        "probability_normalised/real_authors_val",
        "rouge_l_recall/retain_val",
        "mia_min_k/val",
        "privleak/val",
        "model_utility/val",
        "extraction_strength/forget_val",
    },
    "muse": {
        "rouge_l_generated/forget_val.verbmem",
        "rouge_l_generated/forget_val.knowmem",
        "rouge_l_generated/retain_val.knowmem",
        "mia_min_k/val.privleak",
        "privleak/val.privleak",
        "extraction_strength/forget_val.verbmem",
    },
    "wmdp": {"multiple_choice_accuracy/forget_val.bio", "multiple_choice_accuracy/forget_val.cyber"},
    "rwku": {
        *(f"rwku_rouge_l/forget_val.level{n}" for n in (1, 2, 3)),
        *(f"rwku_rouge_l/neighbor_val.level{n}" for n in (1, 2)),
        "perplexity/forget_val.mia",
        "perplexity/retain_val.mia",
    },
    "lume": {
        "rouge_l_recall/forget_val.task1_sc",
        "exact_match_generated/retain_val.task3_qa",
        "task_aggregate/val",
    },
    "pistol": {
        "average_success/val",
        "rouge_1_recall/forget_val",
        "rouge_1_recall/retain_val",
        "exact_match_generated/forget_val",
    },
}


@pytest.mark.parametrize("name", NAMES)
def test_what_the_paper_reports_is_measured(name: str, tiny: Any, tmp_path: Path) -> None:
    benchmark = load(name, tmp_path)
    config = with_suite(parse_config({"data": {"benchmark": name}}))
    short = {part: how.model_copy(update={"max_new_tokens": 3}) for part, how in config.evaluate.parts.items()}
    settings = config.evaluate.model_copy(update={"max_new_tokens": 3, "parts": short})
    found = evaluate(Engine(*tiny, config.data), benchmark, settings).values
    assert MEASURED[name] <= set(found)
    for key in MEASURED[name]:
        assert found[key].value is not None, found[key].skipped
    assert not any("privleak" in key or ".mia" in key for key in found if key.startswith(("rouge", "rwku")))


def test_parts_are_measured_as_if_they_were_alone(tiny: Any, forget: Any, retain: Any) -> None:
    """A part's rows leave the split's value: that of the part and of the rest are those of two benchmarks."""
    rows = [replace(row, split=VAL, attribute=str(i % 2)) for i, row in enumerate([*forget, *retain])]
    base = EvaluateSection(metrics=("perplexity",), splits=("val",), direct_splits=(), generate_splits=())
    parted = base.model_copy(update={"parts": EvaluateSection.model_validate({"parts": {"1": {}}}).parts})
    found = evaluate(Engine(*tiny), Benchmark("b", tuple(rows)), parted).values
    for attribute, suffix in (("0", ""), ("1", ".1")):
        alone = evaluate(Engine(*tiny), Benchmark("b", tuple(r for r in rows if r.attribute == attribute)), base).values
        for scope in (FORGET, RETAIN):
            assert found[f"perplexity/{scope}_val{suffix}"].value == pytest.approx(
                alone[f"perplexity/{scope}_val"].value, rel=1e-5
            )


def test_a_parts_texts_have_its_own_length_and_end_at_its_stop(tiny: Any, benchmark_rows: Any) -> None:
    """Answers are made to be what the model writes in so many tokens, up to a letter: all match exactly, and only so."""
    base: dict[str, Any] = {"metrics": ["exact_match_generated"], "splits": ["val"], "direct_splits": []}
    items = encode([row for row in benchmark_rows[::3] if row.scope in (FORGET, RETAIN)], tiny[1])
    written = [texts[0] for texts in Engine(*tiny).generate([item.prompt_ids for item in items], 20)]
    stop = max("aeinost", key=lambda c: sum(c in text for text in written))
    cut = [text.partition(stop)[0].strip() for text in written]
    rows = tuple(
        replace(item.row, split=VAL, attribute="part", answer=text)
        for item, text in zip(items, cut, strict=True)
        if any(c.isalnum() for c in text)
    )
    assert {FORGET} < {row.scope for row in rows}
    assert sum(a != b for a, b in zip(cut, written, strict=True)) > 3

    def matches(**part: Any) -> float:
        settings = EvaluateSection.model_validate({**base, "max_new_tokens": 2, "parts": {"part": part}})
        values = evaluate(Engine(*tiny), Benchmark("b", rows), settings).values
        return min(values[f"exact_match_generated/{scope}_val.part"].value or 0.0 for scope in (FORGET, RETAIN))

    assert matches(max_new_tokens=20, stop=[stop]) == 1
    assert matches(max_new_tokens=20) < 1
    assert matches(stop=[stop]) < 1


# --- the measures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "generated", "want"),
    [
        # "Stephen King wrote It" shares "King wrote It" with the first generated sentence, "It is long" shares "It long" with
        # the first and "It is" with the second: {King, wrote, It, is, long} of {Stephen, King, wrote, It, is, long}.
        ("Stephen King wrote It. It is long.", "King wrote It long ago. It is.", 5 / 6),
        ("Maine", "Portland, Maine", 1.0),
        ("Portland, Maine", "Portland Maine", 0.5),  # the comma stays on the word
        ("the cat the dog", "dog the cat", 2 / 3),  # {the, cat} of {the, cat, dog}
        ("It", "it", 0.0),
        ("It", "", 0.0),
        ("It", "...", 0.0),
    ],
)
def test_rwku_recall_by_hand(answer: str, generated: str, want: float) -> None:
    assert summary_recall(answer, generated) == pytest.approx(want)


def test_rwku_recall_of_the_reference_package() -> None:
    """Recorded from `rouge` 1.0.1, `get_scores(..., avg=True)["rouge-l"]["r"]`."""
    recorded = json.loads((Path(__file__).parent / "rouge_1_0_1.json").read_text(encoding="utf-8"))
    assert len(recorded) == 40
    for answer, generated, want in recorded:
        assert summary_recall(answer, generated) == pytest.approx(want, abs=1e-12)


def test_rwku_recall_without_a_word() -> None:
    assert summary_recall(" . ", "x") is None


def test_multiple_choice_ties_share(tiny: Any) -> None:
    """The right option ties with one of two wrong ones, the other is below: 1/2."""
    from scopewise.data.rows import Row
    from scopewise.metrics.base import Answered
    from scopewise.metrics.probability import MultipleChoiceAccuracy
    from scopewise.models.score import Scored

    def option(log_prob: float) -> Scored:
        return Scored((log_prob,), (True,))

    row = Answered(Row("Q", "A", FORGET), option(-1.0), perturbed=(option(-1.0), option(-2.0)))
    assert MultipleChoiceAccuracy().measure([row]).value == 50
    alone = Answered(Row("Q", "A", FORGET), option(-1.0))
    value = MultipleChoiceAccuracy().measure([row, alone])
    assert (value.value, value.skipped) == (50, ("1 of 2 rows: no wrong option to choose among",))


def aggregate(forget: float, retain: float) -> Value | None:
    values = {
        f"{measure}/{scope}_val.task{n}_{kind}": Value(forget if scope == FORGET else retain)
        for measure, kind in (("rouge_l_recall", "sc"), ("exact_match_generated", "qa"))
        for scope in (FORGET, RETAIN)
        for n in (1, 2, 3)
    }
    return TaskAggregate().combine(values, None, "val")


def test_task_aggregate_at_its_anchors() -> None:
    """All kept and all forgotten 1; knows everything or nothing 0; 12 / (6/.8 + 6/.4) = 8/15 half way."""
    assert [v.value for v in (aggregate(0.0, 1.0), aggregate(1.0, 1.0), aggregate(0.0, 0.0)) if v] == [1, 0, 0]
    half = aggregate(0.2, 0.4)
    assert half is not None
    assert half.value == pytest.approx(8 / 15)
    assert half.note == "lowest of the twelve: rouge_l_recall/retain_val.task1_sc 0.4"


def test_task_aggregate_names_what_was_not_measured() -> None:
    value = TaskAggregate().combine({"rouge_l_recall/forget_val.task1_sc": Value(0.5)}, None, "val")
    assert value is not None
    assert value.value is None
    assert len(value.skipped) == 11
    assert TaskAggregate().combine({}, None, "val") is None


# --- a run --------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_shipped_run_measures_the_suite_and_compares_with_the_oracle(tmp_path: Path) -> None:
    """`scopewise run` with the settings of the file, small: what it leaves open the benchmark says."""
    settings = [
        f"data.path={tofu(tmp_path / 'TOFU')}", "model.tiny={vocab_size: 300, width: 16, layers: 1, heads: 1}",
        "finetune.num_train_epochs=1", "unlearn.num_train_epochs=1", "unlearn.method=ga_descent",
        "unlearn.early_stopping.rows=0",
    ]  # fmt: skip
    words = [python(), "-m", "scopewise", "run", str(ROOT / "configs" / "tofu_tiny.yaml"), "--json"]
    for setting in settings:
        words += ["--set", setting]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(done.stdout)
    assert results["config"]["evaluate"]["max_new_tokens"] == 200
    rows = {row["method"]: row["metrics"] for row in results["rows"]}
    assert set(rows) == {"target", "oracle", "ga_descent"}
    assert {"model_utility/val", "truth_ratio_forget/val", "probability_normalised/world_facts_val"} <= set(
        rows["target"]
    )
    assert not any(key.endswith("train") for key in rows["target"])
    assert 0 < rows["ga_descent"]["forget_quality/val"] <= 1
    assert rows["oracle"]["forget_quality/val"] is None
