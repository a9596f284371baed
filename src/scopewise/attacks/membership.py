"""Membership inference: tell trained rows from unseen ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from annotated_types import Ge

from scopewise import registry
from scopewise.attacks.base import Attack, Facts, InapplicableError, Outcome, Work
from scopewise.data.rows import Row
from scopewise.metrics.base import Answered
from scopewise.models.engine import Engine

_METRICS = ("mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus")


@dataclass(frozen=True, kw_only=True)
class Membership(Attack):
    """Membership inference: separate forgotten rows from rows that no model has seen.

    Signal: share of the unseen rows that look less like training data than the row. The scores are the loss, the loss
    over the zlib-compressed length, the 40 % least likely tokens, and the same standardised. The mean of the signal
    over rows is the area under the ROC curve. The unseen rows are the benchmark's holdout rows, or, if there are none,
    the same question with answers of other instances.

    Source: the scores of `mia_loss`, `mia_zlib`, `mia_min_k`, `mia_min_k_plus_plus` (docs/metrics.md). An
    over-unlearned model falls below the oracle, which reveals membership as well; so a leakage far below 0 is also a
    leak.

    Attributes:
        others: Answers of other instances for each row, where there are no holdout rows. Default: ours.
    """

    others: Annotated[int, Ge(1)] = 8

    name = "membership"
    suite = "quick"
    alone = True
    chance = 0.5

    def work(self, facts: Facts) -> Work:
        """Return about what the attack costs on one model."""
        return Work(passes=self.others + 1)

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Return, for each row, the share of unseen rows that look less like training data."""
        others = [facts.holdout or swapped(facts, row, self.others) for row in facts.rows]
        if not any(others):
            raise InapplicableError("there are no unseen rows: no holdout rows, and fewer than two instances")
        unseen = list(dict.fromkeys(row for rows in others for row in rows))
        every = [*facts.rows, *unseen]
        pairs = [item.pair for item in subject.encode(every)]
        scored = dict(zip(every, subject.score(pairs, "membership"), strict=True))
        signals: dict[str, list[float | None]] = {}
        for name in _METRICS:
            metric = registry.lookup("metrics", name)()
            values = {row: metric.score(Answered(row, found)) for row, found in scored.items()}
            signals[name] = [
                placement(values[row], [values[o] for o in rows]) for row, rows in zip(facts.rows, others, strict=True)
            ]
        note = (
            ()
            if facts.holdout
            else ("no holdout rows: the same questions with the answers of other instances instead",)
        )
        return Outcome(facts.rows, signals, {}, note)


def swapped(facts: Facts, row: Row, count: int, fits: Callable[[Row, Row], bool] | None = None) -> list[Row]:
    """Return a row's question with up to `count` answers of other instances.

    Args:
        facts: The rows.
        row: Whose question it is.
        count: How many at most.
        fits: Takes the row and another; whether the other's answer may be used. None allows each.
    """
    others = facts.distractors(row, len(facts.rows))
    return [replace(row, answer=other.answer) for other in others if fits is None or fits(row, other)][:count]


def placement(value: float, others: Sequence[float]) -> float | None:
    """Return the share of others that are higher (less like a member); ties count half."""
    if not others:
        return None
    return sum((other > value) + 0.5 * (other == value) for other in others) / len(others)
