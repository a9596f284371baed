"""Curves of attacks that train: the mean signal of the three models over steps, and the steps until facts are back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scopewise.attacks.base import mean_of_known

RECOVERED = 0.5
"""Share of what the target knows beyond the oracle at which facts count as recovered."""


@dataclass(frozen=True)
class Curve:
    """Mean signal of three models over the steps of one attack.

    Attributes:
        name: Data, parameters and learning rate.
        steps: Number of steps at each measurement; the first is 0, before the attack.
        unlearned: Mean signal at each measurement; None if no row has one.
        oracle: The same for the oracle.
        target: The same for the target.
    """

    name: str
    steps: tuple[int, ...]
    unlearned: tuple[float | None, ...]
    oracle: tuple[float | None, ...]
    target: tuple[float | None, ...]


def curves_of(unlearned: Mapping[str, Any], oracle: Mapping[str, Any], target: Mapping[str, Any]) -> tuple[Curve, ...]:
    """Return the curves of an attack from its results on the three models."""
    found = []
    for name, points in unlearned.get("curves", {}).items():
        means = [
            tuple(mean_of_known(piece["signals"][setting]) for _, setting in points)
            for piece in (unlearned, oracle, target)
        ]
        found.append(Curve(name, tuple(step for step, _ in points), *means))
    return tuple(found)


def curves_document(curves: Sequence[Curve]) -> dict[str, Any]:
    """Return the entries of curves in `attacks.json`; none if there are none."""
    if not curves:
        return {}
    return {"curves": [asdict(curve) for curve in curves], "steps_to_recover": steps_to_recover(curves)}


def steps_to_recover(curves: Sequence[Curve]) -> dict[str, Any] | None:
    """Return after how many steps each model first has `RECOVERED` of what the target knows beyond the oracle.

    Target and oracle are taken before the attack. Of several curves, the fastest counts. None if target and oracle do not
    differ.

    Returns:
        `level` (the signal that counts as recovered), `unlearned` and `oracle` (steps; None if never) and `most` (the
        longest attack).
    """
    first = curves[0]
    known, ignorant = first.target[0], first.oracle[0]
    if known is None or ignorant is None or known <= ignorant:
        return None
    level = ignorant + RECOVERED * (known - ignorant)

    def earliest(model: str) -> int | None:
        reached = [
            step
            for curve in curves
            for step, value in zip(curve.steps, getattr(curve, model), strict=True)
            if value is not None and value >= level
        ]
        return min(reached, default=None)

    most = max(curve.steps[-1] for curve in curves)
    return {"level": level, "unlearned": earliest("unlearned"), "oracle": earliest("oracle"), "most": most}
