"""The search for the strength of an unlearning, or the length of a retraining, within a budget. Imports no torch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

FACTOR = 2.0
"""Between the strengths of two attempts while nothing is forgotten, or not yet relearned."""


@dataclass(frozen=True)
class Attempt:
    """A model that was tried.

    Attributes:
        strength: The learning rate of an unlearning, the forget weight of a recipe, or the epochs of a retraining.
        name: Path of its folder in the run folder.
        weak: Whether, if it is not good, a larger strength is needed.
        forgotten: Whether no held-out question still shows the facts.
        kept: Whether the retain rows are known as well as before.
        distance: How far it is from both, for the choice if no attempt reaches them; 0 is best.
        seconds: Duration of training and measuring, and of the attack if there was one.
        leakage: The largest upper end of an interval of leakage under relearning; None if it was not attacked.
        rise: Of the loss on general text in nats per token; None if it was not measured. It does not steer the search.
    """

    strength: float
    name: str
    weak: bool
    forgotten: bool
    kept: bool
    distance: float
    seconds: float
    leakage: float | None = None
    rise: float | None = None

    @property
    def good(self) -> bool:
        """Whether it reached both."""
        return self.forgotten and self.kept


def search(
    start: float,
    attempt: Callable[[float], Attempt],
    *,
    most: int,
    budget: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> list[Attempt]:
    """Try strengths until an attempt is good, the attempts are used up, or the next one would not fit the budget.

    The strength is doubled while it is too small, then bisected (geometrically) between the largest that was too small and
    the smallest that was too large.

    Args:
        start: First strength.
        attempt: Makes and measures a model. An attempt that was made before is read again, so an interrupted search goes on.
        most: Maximum number of attempts.
        budget: Seconds for all of them; None: no limit. The first attempt is always made.
        clock: Seconds.

    Returns:
        The attempts in their order.
    """
    begin, found = clock(), list[Attempt]()
    strength = start
    while len(found) < most:
        found.append(attempt(strength))
        if found[-1].good:
            break
        small = max((a.strength for a in found if a.weak), default=None)
        large = min((a.strength for a in found if not a.weak), default=None)
        if large is None:
            strength = found[-1].strength * FACTOR
        elif small is None:
            strength = large / FACTOR
        elif small >= large:  # the order does not hold: nothing to bisect
            break
        else:
            strength = math.sqrt(small * large)
        dearest = max(a.seconds for a in found)
        if budget is not None and clock() - begin + dearest > budget:
            break
    return found


def chosen(attempts: Sequence[Attempt]) -> Attempt:
    """Return the good attempt from which an attack brings least back, or else the one with the smallest distance."""
    return min(attempts, key=lambda a: (not a.good, a.leakage or 0.0, a.distance))
