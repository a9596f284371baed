"""Inputs from passes of the evaluated model, and of a reference model, over the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from scopewise.data.prompt import Encoded
from scopewise.data.rows import Row
from scopewise.metrics.base import Answered
from scopewise.metrics.needs.base import Need
from scopewise.models.score import Pair, Scored


class Generated(Need):
    """Fills `Answered.generated`: the model's greedy continuation of the prompt, from one pass over all prompts."""

    generates = True


class Moments(Need):
    """Fills `Scored.means` and `Scored.variances` of each position."""

    moments = True


class Paraphrase(Need):
    """Fills `Answered.paraphrase`: the scores of the row's paraphrase, if it has one."""

    def answers(self, row: Row) -> Sequence[str]:
        """Return the paraphrase."""
        return (row.paraphrase,) if row.paraphrase else ()

    def with_scores(self, answered: Answered, scores: Sequence[Scored]) -> Answered:
        """Return the row with its score."""
        return replace(answered, paraphrase=scores[0] if scores else None)


class Perturbed(Need):
    """Fills `Answered.perturbed`: the scores of the row's wrong answers."""

    def answers(self, row: Row) -> Sequence[str]:
        """Return the wrong answers."""
        return row.perturbed

    def with_scores(self, answered: Answered, scores: Sequence[Scored]) -> Answered:
        """Return the row with their scores."""
        return replace(answered, perturbed=tuple(scores))


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


class ReferenceModel(Need):
    """Fills `Answered.reference_log_probs` with `evaluate.reference_model`; without it they stay empty."""

    scored: Mapping[Pair, Scored] = {}

    def prepare(self, items: Sequence[Encoded]) -> None:
        """Score all rows."""
        if self.reference is not None:
            pairs = [item.pair for item in items]
            self.scored = dict(zip(pairs, self.reference.score(pairs), strict=True))

    def fill(self, rows: list[Answered], items: Sequence[Encoded]) -> list[Answered]:
        """Return the rows with that model's log-probabilities."""
        if not self.scored:
            return rows
        return [
            replace(row, reference_log_probs=self.scored[item.pair].log_probs)
            for row, item in zip(rows, items, strict=True)
        ]
