"""Base class of needs: a need adds answers to the scoring pass, or makes its own pass over all rows."""

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
    """Base class of needs.

    Args:
        engine: Of the evaluated model.
        settings: The run file's `evaluate` section.
        reference: Of a model that never saw the forget scope; None if the run has none.
    """

    generates: ClassVar[bool] = False
    """Whether texts are generated, for the splits in `evaluate.generate_splits`."""
    moments: ClassVar[bool] = False
    """Whether each score includes the means and variances of log-probabilities over the vocabulary."""

    def __init__(self, engine: Engine, settings: EvaluateSection, reference: Engine | None = None) -> None:
        self.engine, self.settings, self.reference = engine, settings, reference

    def answers(self, row: Row) -> Sequence[str]:
        """Return other answers of a row, to be scored in the same pass as the true answer."""
        return ()

    def with_scores(self, answered: Answered, scores: Sequence[Scored]) -> Answered:
        """Return the row with the scores of its `answers`; answers that are too long have none."""
        return answered

    def prepare(self, items: Sequence[Encoded]) -> None:
        """Run what is computed once, for all rows of the evaluation."""
        return

    def fill(self, rows: list[Answered], items: Sequence[Encoded]) -> list[Answered]:
        """Return the rows with this need filled in; `items` are the same rows, tokenised."""
        return rows

    def without_end(self, item: Encoded) -> Pair:
        """Return the ids of a tokenised row without the appended end-of-sequence token."""
        return item.prompt_ids, item.answer_ids[:-1] if appends_end(self.engine, self.settings) else item.answer_ids


def appends_end(engine: Engine, settings: EvaluateSection) -> bool:
    """Return whether an end-of-sequence token is appended to tokenised answers."""
    return settings.eos and engine.tokenizer.eos_token_id is not None


def make_needs(
    names: Iterable[str], engine: Engine, settings: EvaluateSection, reference: Engine | None
) -> dict[str, Need]:
    """Return needs by name, in the order of the table; a plugin's need is named `package.module:Class`.

    Raises:
        ConfigError: unknown need.
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
    """Return the indices of rows with a generated text that is not empty."""
    return [i for i, row in enumerate(rows) if row.generated]
