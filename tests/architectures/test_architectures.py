"""Every architecture gives what the library's plain forward gives, or is refused with a sentence."""

from __future__ import annotations

import pytest

from architectures.matrix import PARAMETERS, Data, data, examined
from architectures.models import CONFIGS
from often import often

OFTEN = {("llama", "lora"), ("gemma2", "lora"), ("gpt2", "all"), ("qwen2_moe", "lora"), ("lfm2", "all")}
"""Checked in every run of the tests: plain, a window and caps, transposed matrices, experts, convolutions."""


@pytest.fixture(scope="module")
def given() -> Data:
    """The rows."""
    return data()


@pytest.mark.parametrize(("kind", "parameters"), often([(k, p) for k in CONFIGS for p in PARAMETERS], OFTEN))
def test_what_is_computed_is_what_the_library_computes(kind: str, parameters: str, given: Data) -> None:
    cells = examined(kind, parameters, given)
    assert {name: text for name, text in cells.items() if not text.startswith(("ok", "refused"))} == {}
