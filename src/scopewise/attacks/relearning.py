"""Relearning on a part of the forget scope."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from scopewise.attacks.base import Facts, Suite
from scopewise.attacks.fine_tune import FineTuning
from scopewise.data.rows import Row


@dataclass(frozen=True, kw_only=True)
class Relearning(FineTuning):
    """Fine-tune briefly on the attacker's part of the forget scope, and ask about the other instances.

    Signal: probability of the answer after each of several numbers of steps. What comes back was suppressed, not
    removed: the oracle gets the same steps on the same rows, and cannot know the other instances.

    Source: Hu et al., arXiv:2406.13356 (relearning); Deeb & Roger, arXiv:2410.08827 (held-out facts). Deviations: rows
    are split by instance, theirs by question; all parameters are trained; target and oracle are attacked too.
    """

    name: ClassVar[str] = "relearning"
    suite: ClassVar[Suite] = "quick"

    def material(self, facts: Facts) -> Sequence[Row]:
        """Return the attacker's rows of the forget scope."""
        return facts.held
