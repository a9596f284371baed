"""The contract of a need: other answers that are scored in the same pass, or a pass of its own over all rows."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from typing import ClassVar

from scopewise.config import EvaluateSection
from scopewise.data.prompt import Encoded
from scopewise.data.rows import Row
from scopewise.errors import ConfigError
from scopewise.metrics.base import Answered
from scopewise.metrics.needs import NEEDS
from scopewise.models.engine import Engine
from scopewise.models.score import Pair, Scored
from scopewise.registry import allowed


class Need:
    """Base of the needs.

    Args:
        engine: Of the model that is measured.
        settings: The run file's `evaluate` section.
        reference: Of a model that never saw the forget scope; None where the run has none.
    """

    generates: ClassVar[bool] = False
    """Whether the model writes texts, of the splits that `evaluate.generate_splits` names."""
    moments: ClassVar[bool] = False
    """Whether means and variances of log-probabilities are kept with each score."""

    def __init__(self, engine: Engine, settings: EvaluateSection, reference: Engine | None = None) -> None:
        self.engine, self.settings, self.reference = engine, settings, reference

    def answers(self, row: Row) -> Sequence[str]:
        """Return other answers of a row, to be scored in the pass over the true ones."""
        return ()

    def with_scores(self, answered: Answered, scores: Sequence[Scored]) -> Answered:
        """Return a row with the scores of its `answers`, without those that did not fit."""
        return answered

    def prepare(self, items: Sequence[Encoded]) -> None:
        """Compute what is computed once for all rows of the evaluation."""
        return

    def fill(self, rows: list[Answered], items: Sequence[Encoded]) -> list[Answered]:
        """Return rows with what is needed of them; `items` are the same ones, tokenised."""
        return rows

    @property
    def ends(self) -> bool:
        """Whether tokenised answers end in an end of sequence that was appended."""
        return self.settings.eos and self.engine.tokenizer.eos_token_id is not None

    def without_end(self, item: Encoded) -> Pair:
        """Return the ids of a tokenised row without the end of sequence that was appended to it."""
        return item.prompt_ids, item.answer_ids[:-1] if self.ends else item.answer_ids


def make_needs(
    names: Iterable[str], engine: Engine, settings: EvaluateSection, reference: Engine | None
) -> dict[str, Need]:
    """Return the needs of some metrics, in the order of the table; one of a plugin is written `package.module:Class`.

    Raises:
        ConfigError: there is no such need.
    """
    wanted = frozenset(names)
    for name in sorted(wanted - NEEDS.keys()):
        if ":" not in name:
            raise ConfigError(f"metrics: need {name!r}; {allowed(name, NEEDS, 'or write package.module:Class')}")
    targets = {name: NEEDS[name] for name in NEEDS if name in wanted} | {n: n for n in sorted(wanted - NEEDS.keys())}
    found: dict[str, Need] = {}
    for name, target in targets.items():
        module, _, attribute = target.partition(":")
        found[name] = getattr(importlib.import_module(module), attribute)(engine, settings, reference)
    return found


def with_text(rows: Sequence[Answered]) -> list[int]:
    """Return the indices of the rows that a text was generated for, and that is not empty."""
    return [i for i, row in enumerate(rows) if row.generated]
