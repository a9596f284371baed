"""What every metric and every benchmark of the package must satisfy; `scopewise test-plugin` asks the same of a plugin."""

from __future__ import annotations

import pytest

from engines import hold
from scopewise.metrics import METRICS
from scopewise.registry import lookup
from scopewise.testing import benchmarks
from scopewise.testing.metrics import PROPERTIES, anchors
from scopewise.testing.world import World


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("what", PROPERTIES)
def test_property(name: str, what: str, world: World) -> None:
    hold(PROPERTIES[what], lookup("metrics", name)(), world)


def test_anchors_in_words() -> None:
    """Perfect recall is 0 % Unlearn Success; a uniform model has no hit."""
    assert anchors(lookup("metrics", "unlearn_success")()) == "unlearn_success/val: perfect 0, uniform 100"


@pytest.mark.parametrize("what", benchmarks.PROPERTIES)
def test_property_of_the_built_in_benchmark(what: str) -> None:
    benchmarks.PROPERTIES[what](lookup("benchmarks", "builtin")(), ("builtin", None))
