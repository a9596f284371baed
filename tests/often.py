"""Which cases of a table run with `make test`; the others run with `make test-all`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def often(cases: Iterable[Any], kept: Collection[Any]) -> list[Any]:
    """Return the cases for `parametrize`, those that are not kept marked `long`."""
    cases = list(cases)
    assert set(kept) <= set(cases), f"no such cases: {set(kept) - set(cases)}"
    return [
        case if case in kept else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.long)
        for case in cases
    ]
