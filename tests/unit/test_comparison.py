"""What results say of methods: gaps, differences and leads, from the values of rows and without them."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest

from scopewise import schemas
from scopewise.errors import ResultError
from scopewise.report.comparison import compared, with_comparisons
from scopewise.report.leader import leaders
from scopewise.report.row_values import RowValues, pooled, read_row_values, write_row_values
from scopewise.report.table import markdown

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def row(method: str, protocol: str | None, seed: int = 0) -> dict[str, Any]:
    model = method if method in ("target", "oracle") else "unlearned"
    return {"model": model, "method": method, "protocol": protocol, "seed": seed, "cost": {}, "settings": {}}


def values(unlearn: list[float] | float, retention: float) -> dict[str, Any]:
    forget = [float(unlearn)] * 6 if isinstance(unlearn, int | float) else unlearn
    keys = {"unlearn_success/val": forget, "retention_success/val": [float(retention)] * 6}
    return {key: {"value": sum(v) / len(v), "per_row": v} for key, v in keys.items()}


def compare(*models: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Any]:
    collected = RowValues(0)
    for about, found in models:
        collected.add(about, found, ())
    return compared(collected.document())


def test_retraining_is_compared_and_never_leads() -> None:
    """It is 0 from the oracle, and b 10: its row says so, and b leads, as the only method that approximates."""
    models = (
        (row("oracle", None), values(60, 100)),
        (row("retrain", "paper"), values(60, 100)),
        (row("b", "paper"), values(60, 80)),
    )
    found = compare(*models)
    by = {c["method"]: c for c in found["comparisons"]}
    assert (by["retrain"]["oracle_gap"]["value"], by["b"]["oracle_gap"]["value"]) == (0, 10)
    assert by["b"]["gap_differences"]["retrain"]["value"] == 10
    assert [(lead["best"], lead["reason"], lead["rivals"]) for lead in found["leads"]] == [("b", "one method", {})]
    assert compare(*models[:2])["leads"] == []


def test_compare() -> None:
    """Oracle 60/100. a: 100/80 and 80/80 → average (90 + 80)/2 = 85, gap (30 + 20)/2 = 25. b: 60/90 → 75, gap 5."""
    found = compare(
        (row("target", None), values(0, 100)),
        (row("oracle", None), values(60, 100)),
        (row("a", "paper"), values(100, 80)),
        (row("a", "paper", 1), values(80, 80)),
        (row("b", "paper"), values(60, 90)),
    )
    by = {c["method"]: c for c in found["comparisons"]}
    assert list(by) == ["target", "oracle", "a", "b"]
    assert by["a"]["success"]["average_success"]["value"] == 85
    assert by["a"]["oracle_gap"]["value"] == 25
    assert by["b"]["oracle_gap"] == {"value": 5, "low": 5, "high": 5}
    assert by["oracle"]["oracle_gap"] == {"value": 0, "low": 0, "high": 0}
    assert by["target"]["differences"] == {}
    # Paired by seed: of seed 0 alone, 90 - 75 and (40 + 20)/2 - 5.
    assert by["a"]["differences"]["b"]["value"] == 15
    assert by["b"]["gap_differences"]["a"]["value"] == -25
    assert [(lead["best"], lead["reason"]) for lead in found["leads"]] == [("b", "few seeds")]


def test_opposite_misses_of_seeds_do_not_cancel() -> None:
    """Oracle 60/100; seeds 40/100 and 80/100: each is (20 + 0)/2 = 10 points away, their mean is the oracle itself."""
    models = [(row("oracle", None), values(60, 100))]
    models += [(row("a", "paper", seed), values(unlearn, 100)) for seed, unlearn in enumerate((40, 80))]
    gap = compare(*models)["comparisons"][1]["oracle_gap"]
    assert gap["value"] == 10


def test_each_target_has_its_own_oracle() -> None:
    """Two targets: oracles 60 and 80, method 70 and 70 → 10 and 10 points away in Unlearn, gap 5; two seeds of one target
    are averaged: 65 and 75."""
    collected = []
    for target, oracle, seeds in ((0, 60, (65, 75)), (1, 80, (70,))):
        one = RowValues(target)
        one.add(row("oracle", None, target), values(oracle, 100), ())
        for seed, unlearn in enumerate(seeds):
            one.add(row("a", "paper", seed), values(unlearn, 100), ())
        collected.append(one.document())
    found = compared(pooled(collected))["comparisons"][1]
    assert (found["seeds"], found["success"]["unlearn_success"]["value"]) == (2, 70)
    assert found["oracle_gap"]["value"] == 5
    with pytest.raises(ResultError, match="run 2: its target"):
        pooled([collected[0], collected[0]])
    with pytest.raises(ResultError, match="run 2: measured"):
        pooled([collected[0], {**collected[1], "split": "train"}])


def test_who_leads() -> None:
    """a is 1 point from the oracle with each of three seeds, b 20: it leads. c, 1.2 away give or take, is not behind."""
    models = [(row("oracle", None), values(60, 100))]
    models += [(row("a", "paper", seed), values(58 - 0.1 * seed, 100)) for seed in range(3)]
    models += [(row("b", "paper", seed), values(20 - seed, 100)) for seed in range(3)]
    [lead] = compare(*models)["leads"]
    assert (lead["best"], lead["leads"], lead["by"], lead["seeds"], lead["instances"]) == (
        "a",
        True,
        "oracle_gap",
        3,
        6,
    )
    assert lead["rivals"]["b"]["value"] == pytest.approx(19.45)
    assert "a leads" in leaders({"leads": [lead]})[0]
    models += [(row("c", "paper", seed), values([57.0, 55.0, 59.0][seed], 100)) for seed in range(3)]
    [lead] = compare(*models)["leads"]
    assert (lead["best"], lead["leads"], lead["reason"]) == ("a", False, "close")
    sentence = leaders({"leads": [lead]})[0]
    assert "No method leads" in sentence
    assert "c cannot be distinguished from it" in sentence


def test_without_an_oracle_average_success_decides() -> None:
    models = [(row(m, "tuned", s), values(u + s, 80)) for m, u in (("a", 50), ("b", 70)) for s in range(3)]
    [lead] = compare(*models)["leads"]
    assert (lead["best"], lead["by"], lead["leads"]) == ("b", "average_success", True)
    assert lead["rivals"]["a"]["value"] == pytest.approx(10)


def test_rows_about_few_instances_give_no_verdict() -> None:
    answers = [
        {"scope": scope, "split": "val", "instance": f"p{i % 4}", "question": ""}
        for scope in ("forget", "retain")
        for i in range(6)
    ]
    collected = RowValues(0)
    collected.add(row("oracle", None), values(60, 100), answers)
    for method, unlearn in (("a", 58), ("b", 20)):
        for seed in range(3):
            collected.add(row(method, "paper", seed), values(unlearn, 100), answers)
    document = collected.document()
    assert document["instances"]["unlearn_success/val"] == [0, 1, 2, 3, 0, 1]
    [lead] = compared(document)["leads"]
    assert (lead["reason"], lead["instances"]) == ("few instances", 4)
    assert "at least 5" in leaders({"leads": [lead]})[0]


def test_compare_without_oracle_or_rows() -> None:
    found = compare((row("a", "paper"), values(1, 2)))["comparisons"][0]
    assert found["oracle_gap"] is None
    assert not any(math.isnan(x) for x in found["success"]["average_success"].values())
    assert compare((row("a", "paper"), {})) == {"comparisons": [], "leads": []}


def test_row_values_are_kept_whole(tmp_path: Path) -> None:
    collected = RowValues(3)
    collected.add(row("a", "paper"), {"p/forget_val": {"per_row": [0.1, None, 1 / 3]}, "auc/val": {"per_row": []}}, ())
    path = tmp_path / "results.rows.json.gz"
    write_row_values(path, collected.document())
    first = path.read_bytes()
    assert read_row_values(path) == collected.document()
    assert read_row_values(path)["models"][0]["values"] == {"p/forget_val": [0.1, None, 1 / 3]}
    write_row_values(path, collected.document())
    assert path.read_bytes() == first


def test_row_values_that_are_broken_are_refused(tmp_path: Path) -> None:
    collected = RowValues(0)
    collected.add(row("a", "paper"), values(1, 2), ())
    whole = gzip.compress(json.dumps(collected.document()).encode())
    other = {**collected.document(), "format": "scopewise-rows/9"}
    short = json.loads(json.dumps(collected.document()))
    short["models"][0]["values"]["unlearn_success/val"].pop()
    path = tmp_path / "x.json.gz"
    for content in (
        b"", b"{}", whole[:-9], gzip.compress(b"\xff"), gzip.compress(b"["), gzip.compress(json.dumps(other).encode()),
        gzip.compress(json.dumps(short).encode()),
    ):  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(ResultError, match=r"x\.json\.gz: "):
            read_row_values(path)
    with pytest.raises(ResultError, match=r"none\.gz: "):
        read_row_values(tmp_path / "none.gz")


# Recorded tables. ------------------------------------------------------------------------------------------------------

TABLES = sorted(path.stem for path in RESULTS.glob("*.md"))


def recorded(name: str) -> dict[str, Any]:
    return with_comparisons(schemas.read(RESULTS / f"{name}.json", schemas.ResultsDocument))


@pytest.mark.parametrize("name", TABLES)
def test_recorded_tables_are_those_of_their_results(name: str) -> None:
    assert (RESULTS / f"{name}.md").read_text() == markdown(recorded(name))


@pytest.mark.parametrize("name", TABLES)
def test_recorded_gaps_are_the_mean_of_each_seeds_distance(name: str) -> None:
    """Computed here from the recorded values of each seed, whatever the version of the file."""
    results = recorded(name)
    both = ("unlearn_success/val", "retention_success/val")
    oracle = next(r["metrics"] for r in results["rows"] if r["method"] == "oracle")
    checked = 0
    for comparison in results["comparisons"]:
        members = [
            r for r in results["rows"] if (r["method"], r["protocol"]) == (comparison["method"], comparison["protocol"])
        ]
        away = [sum(abs(r["metrics"][key] - oracle[key]) for key in both) / 2 for r in members]
        assert comparison["oracle_gap"]["value"] == pytest.approx(sum(away) / len(away), abs=1e-9)
        checked += len(away) > 1
    assert checked >= 8


@pytest.mark.parametrize("name", TABLES)
def test_recorded_intervals_are_those_of_the_rows(name: str) -> None:
    """Every interval is computed again from the committed values of rows. Results of versions 1 and 2 have none, and so no
    interval may be shown for them; newer ones must have them."""
    results = recorded(name)
    written = json.loads((RESULTS / f"{name}.json").read_text())["format"]
    if written != schemas.ResultsDocument.FORMAT:
        assert written == "scopewise-results/2"
        assert all(c["oracle_gap"]["low"] is None for c in results["comparisons"])
        assert not any(lead["leads"] for lead in results["leads"])
        return
    again = compared(read_row_values(RESULTS / f"{name}.rows.json.gz"))
    assert again == {key: results[key] for key in again}


def test_results_of_the_first_version_are_refused() -> None:
    with pytest.raises(ResultError, match="knowundo_privacy_tiny_grid"):
        schemas.read(RESULTS / "knowundo_privacy_tiny_grid.json", schemas.ResultsDocument)
