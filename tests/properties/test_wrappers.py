"""What every wrapper must satisfy around several losses: a new row of the table is tested without a new test."""

from __future__ import annotations

from typing import Any

import pytest

from engines import hold
from often import often
from scopewise.methods.base import make_method
from scopewise.methods.wrappers import WRAPPERS
from scopewise.methods.wrappers.base import make_wrappers
from scopewise.testing.world import World
from scopewise.testing.wrappers import PROPERTIES

ACTIVE: dict[str, Any] = {
    "fo_zo": {"period": 1},
    "inner_relearning": {"steps": 2, "rows": 4},
    "conflict_projection": {"rule": "sign"},
    "noise": {"where": "region"},
    "repselect": {"components": 4},
    "undo": {"where": "region", "num_train_epochs": 1},
}
"""Settings with which a wrapper acts within two steps, and a test is fast."""
LOSSES = ("npo", "wga", "ga_kl", "dpo", "rmu", "pdu", "random_labels")


@pytest.mark.parametrize("loss", often(list(LOSSES), {"npo"}))
@pytest.mark.parametrize("name", WRAPPERS)
@pytest.mark.parametrize("what", PROPERTIES)
def test_property(name: str, what: str, loss: str, world: World) -> None:
    arguments: dict[str, Any] = {"retain": "ce"} if not make_method(loss).retain_terms else {}
    (wrapper,) = make_wrappers(f"{loss}+{name}", {name: ACTIVE.get(name, {})})
    hold(PROPERTIES[what], wrapper, world, make_method(loss, **arguments))
