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

    @classmethod
    def planted(cls, answered: Answered, known: bool) -> Answered:
        """Return a made-up row as this need would fill it, for the tests that every metric gets.

        Args:
            answered: The row.
            known: Whether the model knows every answer; otherwise it gives every token the same probability.
        """
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
        ConfigError: as `need_class`.
    """
    wanted = frozenset(names)
    ordered = [*(name for name in NEEDS if name in wanted), *sorted(wanted - NEEDS.keys())]
    return {name: need_class(name)(engine, settings, reference) for name in ordered}


def need_class(name: str) -> type[Need]:
    """Import and return the class of a need: a key of the table, or `package.module:Class`.

    Raises:
        ConfigError: no such need, or a class that cannot be imported or is no need.
    """
    if name not in NEEDS and ":" not in name:
        raise ConfigError(f"metrics: need {name!r}; {allowed(name, NEEDS, 'or write package.module:Class')}")
    module, _, attribute = NEEDS.get(name, name).partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a plugin's own code may fail in any way
        raise ConfigError(
            f"metrics: need {name!r}; it cannot be imported ({type(error).__name__}: {error}); correct `needs` of the metric"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Need)):
        raise ConfigError(
            f"metrics: need {name!r}; it is not a subclass of scopewise.metrics.needs.base.Need; derive it from that"
        )
    return found
