"""Every architecture gives what the library's plain forward gives, or is refused with a sentence."""

from __future__ import annotations

import pytest

from architectures.matrix import PARAMETERS, Data, data, examined
from architectures.models import CONFIGS

OFTEN = ("llama", "mistral", "gemma2", "gpt2", "qwen2_moe", "lfm2")
"""Those that every run of the tests looks at: plain, a window, caps, matrices the other way round, experts, convolutions."""


@pytest.fixture(scope="module")
def given() -> Data:
    """The rows."""
    return data()


@pytest.mark.parametrize("parameters", PARAMETERS)
@pytest.mark.parametrize("kind", [k if k in OFTEN else pytest.param(k, marks=pytest.mark.long) for k in CONFIGS])
def test_what_is_computed_is_what_the_library_computes(kind: str, parameters: str, given: Data) -> None:
    cells = examined(kind, parameters, given)
    assert {name: text for name, text in cells.items() if not text.startswith(("ok", "refused"))} == {}
