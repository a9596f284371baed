"""Gradient norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from scopewise.data.prompt import Encoded
from scopewise.metrics.base import Answered
from scopewise.metrics.needs.base import Need
from scopewise.models.score import Pair


class GradientNorm(Need):
    """Fills `Answered.gradient_norm`: mean over parameter tensors of the norm of the loss's gradient, one backward per
    row.
    """

    norms: Mapping[Pair, float] = {}

    def prepare(self, items: Sequence[Encoded]) -> None:
        """Compute the norms of all rows."""
        self.norms = self.engine.gradient_norms([self.without_end(item) for item in items])

    def fill(self, rows: list[Answered], items: Sequence[Encoded]) -> list[Answered]:
        """Return the rows with their norms."""
        pairs = [self.without_end(item) for item in items]
        return [replace(row, gradient_norm=self.norms.get(pair)) for row, pair in zip(rows, pairs, strict=True)]
