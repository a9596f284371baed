"""The script that compares recipes over seeds, its figures by hand and the whole in small; and the bound on val."""

from __future__ import annotations

import json
import math
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

from loading import module_of
from scopewise.data.rows import FORGET, RETAIN, Row
from scopewise.report.row_values import read_row_values

FOLDER = Path(__file__).parents[2] / "benchmarks"
module_of(FOLDER / "drift.py")  # the scripts import it from their folder
ROBUST, CEILING = module_of(FOLDER / "robust.py"), module_of(FOLDER / "scope_ceiling.py")
CHOOSE = module_of(FOLDER / "choose.py")
NEARNESS = module_of(FOLDER / "nearness.py")


def test_an_interval() -> None:
    """Of 1, 2, 3: mean 2, deviation 1, t(.975; 2) = 4.302653, so ± 4.302653 / √3. Of one value it is infinite."""
    mean, low, high = ROBUST.interval([1, 2, 3])
    assert (mean, high - mean, mean - low) == pytest.approx(
        (2, 4.302653 / math.sqrt(3), 4.302653 / math.sqrt(3)), rel=1e-6
    )
    assert ROBUST.interval([5]) == (5, -math.inf, math.inf)


def written(folder: Path, seed: int, unlearn: float, leakage: float) -> None:
    def row(method: str, reached: float, retention: float, tokens: float) -> dict[str, Any]:
        metrics = {"unlearn_success/val": reached, "retention_success/val": retention}
        return {
            "method": method,
            "metrics": metrics,
            "cost": {"seconds_per_step": 0.5, "steps": 2 * tokens, "tokens": tokens},
        }

    rows = [row("target", 0, 100, 9), row("oracle", 80, 99, 9), row("wga", 90, 89, 5), row("reset_fast", unlearn, 97, 4),
            row("retrain", 81, 98, 10)]  # fmt: skip
    leaks = [
        {"method": "wga", "leakage": 0.9, "steps_to_recover": {"unlearned": 5, "most": 40}},
        {"method": "reset_fast", "leakage": leakage, "steps_to_recover": {"unlearned": None, "most": 40}},
        {"method": "retrain", "leakage": 0.0},
    ]
    own = folder / f"seed{seed}"
    own.mkdir()
    own.joinpath("results.json").write_text(json.dumps({"config": {"run": {"seed": seed}}, "rows": rows}))
    found = [{**leak, "attack": "relearning"} for leak in leaks]
    own.joinpath("attacks.json").write_text(json.dumps({"results": found}))


def test_gaps_and_differences(tmp_path: Path) -> None:
    """Gap of reset_fast: (|82 - 80| + |97 - 99|) / 2 = 2, then 3; of wga 10 each. Price: 4 of 10 tokens.

    The differences of the gaps are -8 and -7. Two rows are compared: -7.5 ± t(1 - .025 / 2; 1) · .5 = 25.4517 · .5.
    """
    written(tmp_path, 0, 82, 0.2)
    written(tmp_path, 1, 84, 0.3)
    found = ROBUST.read(tmp_path)
    assert [found[seed]["reset_fast"]["gap"] for seed in (0, 1)] == [2, 3]
    assert found[0]["wga"]["gap"] == 10
    span = {"value": 83, "low": 79.5, "high": 86.5}
    known = {name: {"value": 0, "low": None, "high": None} for name in ("unlearn_success", "retention_success")}
    comparisons = [{"method": "reset_fast", "success": {**known, "unlearn_success": span}, "oracle_gap": span}]
    text = ROBUST.table(found, {"comparisons": comparisons, "leads": []})
    assert "| reset_fast | 83.0 [79.5, 86.5] | 97.0 | 2.5 [79.5, 86.5] | 0.25 [-0.39, 0.89] | > 40 | 0.40" in text
    assert "- reset_fast - wga, paired by seed: gap -7.50 [-20.23, +5.23], leakage -0.65" in text
    assert "Seeds 0, 1." in text
    order = ["target", "oracle", "retrain", "reset_fast", "wga"]  # by the gap: 1, 2.5, 10
    assert [line.split()[1] for line in text.splitlines() if line.startswith("| ")][1:] == order


def recomputed(path: Path) -> None:
    """Compute a recorded table again from the values of its rows: what each model reached at rest, and who leads."""
    document = json.loads(path.read_text())
    values = ROBUST.read_row_values(path.with_suffix(".rows.json.gz"))
    assert document["leads"] == ROBUST.compared(values)["leads"]
    means = {
        (str(model["target_seed"]), model["method"]): {
            key: sum(model["values"][metric]) / len(model["values"][metric]) for key, metric in ROBUST.METRICS.items()
        }
        for model in values["models"]
    }
    assert set(means) == {(seed, name) for seed, models in document["seeds"].items() for name in models}
    for seed, models in document["seeds"].items():
        for name, model in models.items():
            own, oracle = means[seed, name], means[seed, "oracle"]
            assert {key: model[key] for key in own} == pytest.approx(own)
            assert model["gap"] == pytest.approx(sum(abs(own[key] - oracle[key]) for key in own) / 2)


@pytest.mark.parametrize("name", ["robust", "leaderboard", "rivals", "robust_tofu", "robust_codes", "robust_neox"])
def test_recorded_figures_are_those_of_the_rows(name: str) -> None:
    recomputed(FOLDER / "results" / f"{name}.json")


def test_a_recipe_is_compared_with_the_methods_of_another_run() -> None:
    """By the difference of their gaps; who is not told from it is named."""
    ours, published = (
        read_row_values(FOLDER / "results" / f"{name}.rows.json.gz") for name in ("robust", "leaderboard")
    )
    recorded = [
        json.loads((FOLDER / "results" / f"{name}.json").read_text())["seeds"] for name in ("robust", "leaderboard")
    ]
    (line,) = ROBUST.against(ours, published, ("reset_robust",)).splitlines()
    said = re.fullmatch(
        r"- reset_robust .* than (\d+) of 30 entries, the nearest (\w+) \((.+?) points, .*told from (.*)\.", line
    )
    assert said is not None
    own, nearest = (
        statistics.fmean(models[name]["gap"] for models in found.values())
        for found, name in zip(recorded, ("reset_robust", said[2]), strict=True)
    )
    assert float(said[3]) == pytest.approx(nearest - own, abs=0.06)
    assert int(said[1]) + said[4].count("points") == 30
    worse = {**ours, "models": [{**m, "method": "ruined"} for m in ours["models"] if m["method"] == "target"]}
    worse["models"] = [{**m, "protocol": "paper"} for m in worse["models"]]
    assert "ihl is closer" in ROBUST.against(worse, published, ("ruined",))


@pytest.mark.slow
def test_a_seed_runs_with_its_attacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = [
        "model.tiny={width: 32, layers: 1, heads: 2, vocab_size: 400}", "data.benchmark=builtin", "data.domain=null",
        "finetune.num_train_epochs=2", "unlearn.num_train_epochs=0.2", "unlearn.early_stopping.rows=0", "attack.rows=12",
        "attack.attack_args={relearning: {learning_rates: [1e-3], steps: 2}}",
        "evaluate.metrics=[unlearn_success, retention_success]",
    ]  # fmt: skip
    out = tmp_path / "found.json"
    ROBUST.main([str(tmp_path / "runs"), "--seeds", "3", "--out", str(out), *sets(changes)])
    models = json.loads(out.read_text())["seeds"]["3"]
    assert set(models) == {"target", "oracle", "reset_fast", "reset_robust", "wga", "retrain"}
    assert all((model["drift"] is None) == (name == "target") for name, model in models.items())
    assert models["wga"]["drift"] > 0
    recomputed(out)
    assert models["oracle"]["gap"] == 0
    assert models["retrain"]["price"]["steps"] == 1
    assert "Seed 3." in capsys.readouterr().out
    again = [*changes, "unlearn.parameters=lora", "bench.methods=[npo]", "attack.attacks=[relearning, quantization]"]
    ROBUST.main(
        [str(tmp_path / "other"), "--seeds", "3", "--targets", str(tmp_path / "runs"), "--out", str(out), *sets(again)]
    )
    others = json.loads(out.read_text())["seeds"]["3"]
    assert others["oracle"]["unlearn"] == models["oracle"]["unlearn"]
    assert others["npo"]["leakage_quantized"] is not None or others["npo"]["leakage"] is None
    assert not (tmp_path / "other/seed3/target").exists()


def test_the_bound_by_hand() -> None:
    """Two forget rows at .9 and .4, two retain rows at .6 and .1. Target 0 / 100, oracle 80 / 90.

    At .9 one forget row of two goes: 40 / 100, a gap of (40 + 10) / 2. At .6 also one retain row: 40 / 60, (40 + 30) / 2. At .4
    both forget rows and one retain row: 80 / 60, (0 + 30) / 2. At .1 all: 80 / 20, (0 + 70) / 2.
    """
    best = CEILING.best_reached([0.9, 0.4, 0.6, 0.1], [True, True, False, False], (0.0, 100.0), (80.0, 90.0))
    assert best == {"unlearn": 80, "retention": 60, "gap": 15, "threshold": 0.4}


def test_scopes_that_words_tell_apart() -> None:
    def rows(count: int) -> list[Row]:
        names = [f"Ada{chr(97 + i)} King{chr(97 + i)}" for i in range(count)]
        return [Row(f"Where does {n} live?", "Here.", FORGET) for n in names] + [
            Row(f"What did {n} write?", "It.", RETAIN) for n in names
        ]

    found, chance = CEILING.classified(rows(6), rows(3), answer=False)
    assert (found["accuracy"], found["auc"]) == (1, 1)
    assert [value > 0.5 for value in chance] == [True] * 3 + [False] * 3


def test_choosing_reads_no_forget_row_of_val() -> None:
    """Ten forget train rows of one person, five of another: the last two and the last one are held out. Retain rows stay."""
    rows = [Row(f"{name} {i}", "a", FORGET, instance=name) for i in range(10) for name in "ab" if name == "a" or i < 5]
    others = [Row("v", "a", FORGET, split="val"), Row("r", "a", RETAIN, split="val"), Row("t", "a", RETAIN)]
    found = CHOOSE.rows_to_choose_on([*rows, *others])
    assert sorted(row.question for row in found if row.split == "val") == ["a 8", "a 9", "b 4", "r"]
    assert sorted(row.question for row in found) == sorted([*(row.question for row in rows), "r", "t"])


def test_a_row_is_near_if_a_train_row_has_half_of_its_rare_words() -> None:
    """Of "pen ink", "ink sea" has one of two; of "fog hill elm", nothing has two. "the" is in more than 20 rows."""
    texts = ["ink sea", "fog moor", *map(str, range(20))]
    train = [Row(f"{i}?", f"the {text}", FORGET, instance="Ada") for i, text in enumerate(texts)]
    val = [Row("v", "the pen ink", FORGET, split="val"), Row("w", "the fog hill elm", FORGET, split="val")]
    assert NEARNESS.measure([*train, *val])["val"] == {"rows": 2, "near": 0.5}


@pytest.mark.slow
def test_candidates_run_on_a_finished_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shared = ["unlearn.early_stopping.rows=0", "attack.rows=12", "evaluate.metrics=[unlearn_success, retention_success]",
              "attack.attack_args={relearning: {learning_rates: [1e-3], steps: 2}}"]  # fmt: skip
    tiny = ["model.tiny={width: 32, layers: 1, heads: 2, vocab_size: 400}", "data.benchmark=builtin", "data.domain=null",
            "finetune.num_train_epochs=2", "bench.methods=[wga, retrain]"]  # fmt: skip
    ROBUST.main([str(tmp_path / "runs"), "--seeds", "0", *sets([*shared, *tiny])])
    out = tmp_path / "found.json"
    CHOOSE.main([str(tmp_path / "runs/seed0"), str(tmp_path / "choose"), "--candidates", "ihl:0.5:0.1:0.25", "--out", str(out),
                 *sets(shared)])  # fmt: skip
    (one,) = json.loads(out.read_text())["candidates"].values()
    assert one["gap"] >= 0
    assert "| ihl+reset | 0.5 | 0.1 | 0.25 |" in capsys.readouterr().out


def sets(changes: list[str]) -> list[str]:
    return [word for change in changes for word in ("--set", change)]
