"""What decides a stage: every field of every section, but for those that are listed with a reason."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from scopewise.config import RunConfig
from scopewise.run_file import parse_config
from scopewise.runs.stages import NOT_DECISIVE, STAGES, identity, model_identity
from scopewise.section import Section

pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")  # of values of another type
MADE = ("target", "oracle", "retrain", "region", "model", "trial")  # all of which begin with a fine-tuned model
FEEDS: dict[str, tuple[str, ...]] = {
    "run": ("base", *MADE),
    "model": (*MADE, "merged", "held out", "evaluation", "attack"),
    "model.tiny": tuple(STAGES),
    "data": tuple(STAGES),
    "finetune": MADE,
    "lora": MADE,
    "localize": ("region", "model", "trial"),
    "unlearn": ("model", "trial"),
    "unlearn.parameters": ("region", "model", "trial"),
    "unlearn.adapter": ("region", "model", "trial"),
    "evaluate": ("evaluation",),
    "evaluate.max_tokens": ("evaluation", "trial", "held out"),
    "evaluate.parts": ("evaluation", "trial", "held out"),
    "attack": ("attack",),
    "bench": (),
}
"""Written down by what reads a section, not by `STAGES`; the longest name that fits a field counts."""


def fields(section: type[Section], path: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from fields(field.annotation, f"{path}{name}.")
        else:
            yield f"{path}{name}"


def changed(section: Any, path: str) -> Any:
    """The section with another value in one field: a text that no setting has, or else is no default."""
    name, _, rest = path.partition(".")
    value = changed(getattr(section, name), rest) if rest else "another"
    return section.model_copy(update={name: value})


def feeds(path: str) -> tuple[str, ...]:
    fitting = [name for name in FEEDS if f"{path}.".startswith(f"{name}.")]
    return FEEDS[max(fitting, key=len)]


def of(config: RunConfig, stage: str) -> dict[str, Any]:
    return identity(config, stage, "content", seed=0)


@pytest.mark.parametrize("path", list(fields(RunConfig)))
def test_a_setting_decides_the_stages_that_it_feeds_and_no_other(path: str) -> None:
    config = RunConfig()
    other = changed(config, path)
    found = {stage for stage in STAGES if of(config, stage) != of(other, stage)}
    assert found == (set() if path in NOT_DECISIVE else set(feeds(path)))


def test_each_exception_is_a_setting_and_has_a_reason() -> None:
    assert set(NOT_DECISIVE) <= set(fields(RunConfig))
    assert all(NOT_DECISIVE.values())


def test_the_rows_decide_every_stage() -> None:
    for stage in STAGES:
        assert identity(RunConfig(), stage, "a") != identity(RunConfig(), stage, "b")


def test_a_target_that_is_given_was_not_fine_tuned_here() -> None:
    """Fine-tuning and its seed then decide the oracle and retraining alone."""
    config = parse_config({"model": {"target": "there"}})
    for path in ("finetune.learning_rate", "run.seed"):
        other = changed(config, path)
        found = {stage for stage in STAGES if of(config, stage) != of(other, stage)}
        assert found - {"base"} == {"target", "oracle", "retrain"}


def test_a_model_is_told_by_its_files(tmp_path: Any) -> None:
    """By the record of its stage where it has one; else by the size and time of its weights, and by its name."""
    names = [model_identity("a/hub-name"), model_identity("another/hub-name")]
    weights = tmp_path / "model.safetensors"
    for content in ("one", "longer"):
        weights.write_text(content)
        names.append(model_identity(tmp_path))
    for content in ("{}", '{"inputs": {}}'):
        (tmp_path / "stage.json").write_text(content)
        names.append(model_identity(tmp_path))
    assert len(set(names)) == len(names)
