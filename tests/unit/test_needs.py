"""The table of needs: what metrics ask for is in it, and one file makes each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import scopewise
from scopewise import registry
from scopewise.config import EvaluateSection
from scopewise.errors import ConfigError
from scopewise.metrics.base import Answered, RowMetric, Value, mean
from scopewise.metrics.needs import NEEDS
from scopewise.metrics.needs.base import Need, make_needs
from scopewise.testing.world import World


def test_every_need_of_a_metric_is_in_the_table_and_every_row_is_needed() -> None:
    asked = {need for name in registry.table("metrics") for need in registry.lookup("metrics", name).needs}
    assert asked == set(NEEDS)


def test_one_file_per_row() -> None:
    folder = Path(str(scopewise.__file__)).parent / "metrics" / "needs"
    assert {path.stem for path in folder.glob("*.py")} - {"__init__", "base"} == set(NEEDS)
    assert all(target.partition(":")[0] == f"scopewise.metrics.needs.{name}" for name, target in NEEDS.items())


def test_they_are_made_in_the_order_of_the_table(world: World) -> None:
    found = make_needs(["fluency_model", "generated"], world.engine(), EvaluateSection(), None)
    assert list(found) == ["generated", "fluency_model"]
    with pytest.raises(ConfigError, match="Did you mean 'generated'"):
        make_needs(["generate"], world.engine(), EvaluateSection(), None)


class Shouting(Need):
    """The first token of the answer in capitals, scored in the one pass."""

    def answers(self, row: Any) -> Sequence[str]:
        return (row.answer.upper(),)

    def with_scores(self, answered: Answered, scores: Sequence[Any]) -> Answered:
        assert len(scores) == 1
        return replace(answered, fluency=scores[0].log_probs[0])


class Loudness(RowMetric):
    """Uses a need of its own."""

    name = "loudness"
    scope = "each"
    label = "Loudness"
    better = "higher"
    needs = frozenset({f"{__name__}:Shouting"})

    def measure(self, rows: Sequence[Answered]) -> Value:
        return mean([row.fluency for row in rows], "nothing")


def test_a_metric_with_a_need_of_its_own(world: World) -> None:
    """One class and its name: the value is the score of that answer by itself."""
    rows = {scope: world.rows[scope][:3] for scope in ("forget", "retain")}
    found = scopewise.evaluate(
        world.model(), world.tokenizer, forget=rows["forget"], retain=rows["retain"],
        metrics=[f"{__name__}:Loudness"], direct_splits=(),
    )  # fmt: skip
    engine = world.engine()
    shouted = [replace(row, answer=row.answer.upper()) for row in rows["forget"]]
    alone = [score.log_probs[0] for score in engine.score([item.pair for item in engine.encode(shouted)])]
    key = next(key for key in found.metrics if "forget" in key)
    assert found.document()[key]["better"] == "higher"
    assert found.metrics[key] == pytest.approx(sum(alone) / 3, rel=1e-4)
