"""What is planned for a request, and the settings that it begins with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scopewise.erasure.plan import (
    Taught,
    finetuning,
    learning_rate,
    plan,
    searched,
    strengths,
    taught,
    undoing_more,
    unlearning,
    with_strength,
)
from scopewise.errors import ConfigError
from scopewise.record import manifest


def test_nothing_is_done_about_what_is_not_known() -> None:
    assert plan(known=False, base="base", retain=9, asked=None).kind == "nothing"
    assert plan(known=False, base=None, retain=0, asked="exact").kind == "nothing"


@pytest.mark.parametrize(
    ("base", "retain", "asked", "kind", "method"),
    [
        ("base", 9, None, "exact", "retrain"),
        ("base", 9, "exact", "exact", "retrain"),
        ("base", 9, "approximate", "approximate", "reset_robust"),
        (None, 9, None, "approximate", "wga"),
        ("base", 0, None, "approximate", "wga"),
    ],
)
def test_exact_where_base_and_rows_are_there(
    base: str | None, retain: int, asked: str | None, kind: str, method: str
) -> None:
    found = plan(known=True, base=base, retain=retain, asked=asked)  # type: ignore[arg-type]
    assert (found.kind, found.method) == (kind, method)


@pytest.mark.parametrize(("base", "retain"), [(None, 9), ("base", 0)])
def test_exact_cannot_be_asked_for_without_them(base: str | None, retain: int) -> None:
    with pytest.raises(ConfigError, match="--exact"):
        plan(known=True, base=base, retain=retain, asked="exact")


def test_an_adapter_names_its_base(tmp_path: Path) -> None:
    tmp_path.joinpath("adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "some/base", "r": 4, "lora_alpha": 8, "target_modules": None})
    )
    assert taught(str(tmp_path)) == Taught("some/base", {"parameters": "lora"}, {"r": 4, "lora_alpha": 8})
    assert taught(str(tmp_path / "elsewhere")) == Taught()


def test_settings_by_size() -> None:
    """4 million parameters: 1e-3; LoRA ten times that; 100 forget rows at 8 a step are 13 steps, so 120 / 13 epochs."""
    assert learning_rate(4_000_000, "all") == 1e-3
    assert learning_rate(7_000_000_000, "all") == 2e-5
    found = finetuning(Taught(None, {"parameters": "lora"}), 4_000_000)
    assert (found["parameters"], found["learning_rate"]) == ("lora", 1e-2)
    own = {"parameters": "all", "learning_rate": 3e-4, "num_train_epochs": 7.0}
    assert finetuning(Taught("base", own), 4_000_000) == own
    asked = finetuning(Taught(None, {}), 4_000_000, "lora")
    assert asked == found, "the learning rate is of what is trained"
    assert finetuning(Taught("base", own), 4_000_000, own["parameters"]) == own
    begin = unlearning("wga", found, 100, 300)
    assert begin["learning_rate"] == found["learning_rate"] == 1e-2
    assert unlearning("wga", own, 100, 300)["learning_rate"] == pytest.approx(3e-4 / 5)
    assert begin["num_train_epochs"] == pytest.approx(120 / 13)
    assert begin["method_args"]["retain_data"] == "both"
    assert unlearning("wga+sam", found, 100, 300)["method_args"] == begin["method_args"]
    assert "method_args" not in unlearning("ga_descent", found, 100, 300), "its own losses"


def test_a_recipe_takes_a_share_of_the_steps_of_retraining() -> None:
    """Batches of 10: retraining takes 20 epochs of 30 steps, and the recipe .69 of that; 5 forget rows are a step an epoch
    (with as many retain rows), and 3000 are 600, of which there are at least 4 epochs."""
    finetune = {"parameters": "all", "learning_rate": 2e-3, "num_train_epochs": 20.0, "batch_size": 10}
    few, many = (unlearning("reset_robust", finetune, forget, 300) for forget in (5, 3000))
    assert few["num_train_epochs"] == pytest.approx(0.69 * 600)
    assert many["num_train_epochs"] == pytest.approx(4)
    assert few["learning_rate"] == 2e-3
    assert few["retain_rows"] == "taught"
    assert (searched("reset_robust"), searched("wga"), searched("retrain")) == (
        "forget_weight", "learning_rate", "num_train_epochs",
    )  # fmt: skip
    stronger = with_strength(few, "forget_weight", 7.0)
    assert stronger["method_args"] == {"forget_weight": 7.0}
    assert stronger["wrapper_args"] == few["wrapper_args"]
    assert with_strength(finetune, "learning_rate", 1.0) == finetune | {"learning_rate": 1.0}
    assert strengths(few, "forget_weight") == {"forget_weight": 0.065, "reset": 0.7}
    assert strengths(finetune, "learning_rate") == {"learning_rate": 2e-3}
    more = undoing_more(few)
    assert more is not None
    assert strengths(more, "forget_weight") == {"forget_weight": 0.065, "reset": pytest.approx(0.97)}
    assert more["num_train_epochs"] == pytest.approx(few["num_train_epochs"] * 97 / 70)
    most = undoing_more(more)
    assert most is not None
    assert strengths(most, "forget_weight") == {"forget_weight": 0.065, "reset": pytest.approx(0.997)}
    assert most["num_train_epochs"] == pytest.approx(more["num_train_epochs"] * 4 / 3)
    assert undoing_more(most) is None, "nothing worth undoing is left"
    assert strengths(few, "forget_weight")["reset"] == 0.7, "the settings given are left as they are"


@pytest.mark.parametrize(("path", "blank"), [("tiny", True), ("some/model", False)])
def test_the_base_of_a_tiny_run_was_never_taught(path: str, blank: bool, tmp_path: Path) -> None:
    inputs = {"model": {"path": path}, "finetune": {"learning_rate": 1e-3}}
    stage = {"format": "scopewise-stage/1", "inputs": inputs, "origin": manifest(None, None)}
    tmp_path.joinpath("base").mkdir()
    tmp_path.joinpath("target").mkdir()
    tmp_path.joinpath("target", "stage.json").write_text(json.dumps(stage))
    found = taught(str(tmp_path / "target"))
    assert found.blank == blank
    assert found.base == (str(tmp_path / "base") if blank else path)
