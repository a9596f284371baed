"""A model that cannot be the zero of a scale is refused: of another kind, or one that knows what is to be forgotten."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

import scopewise
from scopewise.attacks.oracle import check_ignorant
from scopewise.config import RunConfig, TinyConfig
from scopewise.data.rows import Benchmark
from scopewise.errors import ConfigError, ModelError
from scopewise.models.tiny import build_tiny
from scopewise.pipeline import Pipeline


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
