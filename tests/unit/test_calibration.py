"""White-box attacks and models of another basis: which settings say something, and an oracle that no patch fits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from attacking import leak
from scopewise.attacks.states import Ridge, with_one
from scopewise.attacks.suite import calibrated
from scopewise.config import TinyConfig
from scopewise.data.prompt import encode
from scopewise.data.rows import RETAIN
from scopewise.models.tiny import build_tiny, tokenizer_texts
from scopewise.testing.attacks import trained


def piece(controls: dict[str, float]) -> dict[str, Any]:
    return {"signals": {"layer 1": [0.5], "layer 2": [0.5]}, "controls": controls}


def test_settings_that_do_not_work_on_the_oracle_are_left_out() -> None:
    """.72 / .9 = .8 of the target's probability at layer 1, .18 / .9 = .2 at layer 2; the threshold is .7."""
    target = piece({"layer 1": 0.9, "layer 2": 0.9})
    usable, notes = calibrated(piece({"layer 1": 0.72, "layer 2": 0.18}), target)
    assert usable == ["layer 1"]
    assert "0.20 to 0.20" in notes[0]
    assert calibrated(piece({"layer 1": 0.9, "layer 2": 0.7}), target) == (["layer 1", "layer 2"], ())
    usable, notes = calibrated(piece({"layer 1": 0.036, "layer 2": 0.315}), target)
    assert usable == []
    assert "0.04 to 0.35" in notes[0]
    assert calibrated(piece({}), piece({})) == (["layer 1", "layer 2"], ())


def test_the_map_is_the_ridge_regression_towards_no_change() -> None:
    """It finds a linear map, and is exactly zero where the states are the same."""
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(200, 6, generator=generator)
    turned = torch.randn(6, 6, generator=generator)
    fit, same = Ridge(), Ridge()
    for part in state.split(50):
        fit.add(part, part @ turned + 1.0 - part)
        same.add(part, part - part)
    mapped = state + with_one(state) @ fit.solved()
    assert torch.allclose(mapped, state @ turned + 1.0, atol=0.15)
    assert not same.solved().any()


@pytest.fixture(scope="module")
def elsewhere(attacked: Any) -> Any:
    """A model from another initialisation that was taught the retain rows: an oracle with another basis."""
    benchmark, tokenizer, *_ = attacked
    config = TinyConfig(vocab_size=300, width=64, layers=3, heads=2, context=256)
    base, _ = build_tiny(tokenizer_texts(benchmark.rows), config, seed=7)
    return trained(base, encode(benchmark.select(RETAIN), tokenizer), 100)


def test_patching_is_not_applicable_with_an_oracle_of_another_basis(attacked: Any, elsewhere: Any) -> None:
    """Without the calibration the model of the target's basis would be read against a zero that no model reaches."""
    benchmark, tokenizer, target, oracle = attacked
    alien = (benchmark, tokenizer, target, elsewhere)
    found = leak(alien, oracle, "patching")
    assert found.verdict == "not applicable"
    assert found.leakage is None
    assert "basis" in found.notes[0]
    assert leak(attacked, oracle, "patching").leakage.value == pytest.approx(0.0, abs=1e-6)


def test_the_lens_reads_an_oracle_of_another_basis_by_its_own_head(attacked: Any, elsewhere: Any) -> None:
    benchmark, tokenizer, target, oracle = attacked
    found = leak((benchmark, tokenizer, target, elsewhere), oracle, "logit_lens")
    assert found.verdict in ("holds", "over-unlearned")
    assert all(name.endswith("own head") for name in found.leakage.by_setting)
    assert any("left out" in note for note in found.notes)
