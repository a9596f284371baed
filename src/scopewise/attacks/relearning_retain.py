"""Relearning on benign rows of the same instances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from scopewise.attacks.base import Facts, InapplicableError, Suite
from scopewise.attacks.fine_tune import FineTuning
from scopewise.data.rows import Row


@dataclass(frozen=True, kw_only=True)
class RelearningRetain(FineTuning):
    """Fine-tune briefly on the retain scope, which anyone may have, and ask about the forget scope.

    Signal: as in `relearning`, on the same rows.

    Source: Hu et al., arXiv:2406.13356 (benign relearning).
    """

    name: ClassVar[str] = "relearning_retain"
    suite: ClassVar[Suite] = "full"

    def material(self, facts: Facts) -> Sequence[Row]:
        """Return the train rows of the retain scope."""
        if not facts.retain:
            raise InapplicableError("there is no train row of the retain scope")
        return facts.retain
