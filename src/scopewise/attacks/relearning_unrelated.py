"""Relearning on unrelated text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from scopewise.attacks.base import Facts, InapplicableError, Suite
from scopewise.attacks.fine_tune import FineTuning
from scopewise.data.rows import Row


@dataclass(frozen=True, kw_only=True)
class RelearningUnrelated(FineTuning):
    """Fine-tune briefly on general text that does not mention the instances, and ask about the forget scope.

    Signal: as in `relearning`, on the same rows. If even unrelated fine-tuning recovers an answer, it was only
    suppressed.

    Source: Łucki et al., arXiv:2409.18025 (fine-tuning on unrelated text).
    """

    name: ClassVar[str] = "relearning_unrelated"
    suite: ClassVar[Suite] = "full"

    def material(self, facts: Facts) -> Sequence[Row]:
        """Return the general text."""
        if not facts.general:
            raise InapplicableError("the benchmark has no general text; set data.general")
        return facts.general
