"""The table of needs: what metrics ask for is in it, and every need in the folder is a row of it."""

from __future__ import annotations

import inspect
import re
import sys
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
from scopewise.metrics.needs.base import Need, make_needs, need_class
from scopewise.run_file import load_config
from scopewise.runs.checks import check_run
from scopewise.testing.findings import findings
from scopewise.testing.world import World


def test_every_need_of_a_metric_is_in_the_table_and_every_row_is_needed() -> None:
    asked = {need for name in registry.table("metrics") for need in registry.lookup("metrics", name).needs}
    assert asked == set(NEEDS)


def test_every_file_has_a_row_and_every_need_is_a_row() -> None:
    folder = Path(str(scopewise.__file__)).parent / "metrics" / "needs"
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "base"}
    assert {target.partition(":")[0] for target in NEEDS.values()} == {f"scopewise.metrics.needs.{f}" for f in files}
    for name, target in NEEDS.items():
        assert name == re.sub(r"(?<=.)([A-Z])", r"_\1", target.partition(":")[2]).lower()
    modules = {sys.modules[need_class(name).__module__] for name in NEEDS}
    own = {c for m in modules for c in vars(m).values() if inspect.isclass(c) and c.__module__ == m.__name__}
    rows = {need_class(name) for name in NEEDS}
    assert {c for c in own if issubclass(c, Need)} <= rows | {base for row in rows for base in row.__mro__[1:]}


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


NAME = f"{__name__}:Whispering"


class Whispering(Need):
    """The first token of the answer in small letters: a need that has no attribute of `Answered`."""

    @classmethod
    def planted(cls, answered: Answered, known: bool) -> Answered:
        return replace(answered, more={NAME: -0.1 if known else -5.0})

    def answers(self, row: Any) -> Sequence[str]:
        return (row.answer.lower(),)

    def with_scores(self, answered: Answered, scores: Sequence[Any]) -> Answered:
        return replace(answered, more={NAME: scores[0].log_probs[0]})


class Unfilled(Whispering):
    """Fills nothing in on a model."""

    def with_scores(self, answered: Answered, scores: Sequence[Any]) -> Answered:
        return answered


class Unplanted(Need):
    """Fills nothing in on the rows of the tests."""


class Softness(RowMetric):
    """Reads it."""

    name = "softness"
    scope = "each"
    label = "Softness"
    better = "higher"
    needs = frozenset({NAME})

    def measure(self, rows: Sequence[Answered]) -> Value:
        return mean([row.more.get(NAME) for row in rows], "nothing")


class UnfilledSoftness(Softness):
    """Whose need is not filled in."""

    needs = frozenset({f"{__name__}:Unfilled"})


class UnplantedSoftness(Softness):
    """Whose need is not planted."""

    needs = frozenset({f"{__name__}:Unplanted"})


class MisspeltSoftness(Softness):
    """Whose need does not exist."""

    needs = frozenset({f"{__name__}:Whisper"})


def failed(cls: type) -> dict[str, str]:
    found = findings("metrics", f"{__name__}:{cls.__name__}", {})
    return {finding.name: finding.note for finding in found if finding.verdict == "fail"}


def test_a_need_without_an_attribute_passes_the_tests_of_plugins() -> None:
    assert not failed(Softness)


def test_a_need_that_fills_nothing_in_fails() -> None:
    assert "is None on the small model: " in failed(UnfilledSoftness)["its own needs are filled"]
    assert "`planted` of a need of your own must fill these rows" in failed(UnplantedSoftness)["values are finite"]
    assert "Whisper'; it cannot be imported (AttributeError: " in failed(MisspeltSoftness)["values are finite"]


@pytest.mark.parametrize(
    ("need", "sentence"),
    [
        ("no_such_module:Class", "metrics: need 'no_such_module:Class'; it cannot be imported (ModuleNotFoundError: "),
        (f"{__name__}:Loudness", "is not a subclass of scopewise.metrics.needs.base.Need; derive it from that"),
    ],
)
def test_a_need_that_cannot_be_had_is_one_sentence_before_training(
    need: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        need_class(need)
    monkeypatch.setattr(Softness, "needs", frozenset({need}))
    config = load_config(None, [f"evaluate.metrics=[{__name__}:Softness]", "data.benchmark=builtin", "model.path=tiny"])
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        check_run(config)
