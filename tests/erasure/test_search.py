"""The search for a strength, on made-up models whose effect of a strength is known."""

from __future__ import annotations

from collections.abc import Callable

from scopewise.erasure.search import Attempt, chosen, search


def model(least: float, most: float, tried: list[float]) -> Callable[[float], Attempt]:
    """Return attempts that forget from one strength on, and keep up to another."""

    def attempt(strength: float) -> Attempt:
        tried.append(strength)
        away = max(0.0, least - strength) + max(0.0, strength - most)
        weak = strength < least
        return Attempt(strength, str(strength), weak, not weak, strength <= most, away, 1.0)

    return attempt


def test_doubles_then_bisects() -> None:
    """1, 2 and 4 are too weak, 8 too strong, √32 = 5.66 is good."""
    tried: list[float] = []
    found = search(1.0, model(5.0, 6.0, tried), most=9)
    assert tried == [1.0, 2.0, 4.0, 8.0, 32**0.5]
    assert chosen(found).strength == 32**0.5


def test_halves_while_too_strong() -> None:
    tried: list[float] = []
    search(1.0, model(0.2, 0.3, tried), most=9)
    assert tried == [1.0, 0.5, 0.25]


def test_ends_with_the_nearest() -> None:
    """Nothing is good between 5 and 4.9: of 4, 8 and their middle the nearest is 5.66 or 4, by their distances .76 and 1."""
    tried: list[float] = []
    found = search(4.0, model(5.0, 4.9, tried), most=3)
    assert tried == [4.0, 8.0, 32**0.5]
    assert not any(one.good for one in found)
    assert chosen(found).strength == 32**0.5


def test_the_budget_ends_it_but_not_before_the_first() -> None:
    now = iter(range(0, 1000, 10))
    tried: list[float] = []
    search(1.0, model(99.0, 100.0, tried), most=9, budget=0.5, clock=lambda: next(now))
    assert tried == [1.0]
