"""Relearning on benign rows of the same instances."""

from __future__ import annotations

from scopewise.attacks.base import Attack, Facts, InapplicableError, Outcome
from scopewise.attacks.fine_tune import relearned
from scopewise.models.engine import Engine


class RelearningRetain(Attack):
    """Fine-tune briefly on the retain scope, which is lawful to have, and ask for the forget scope.

    Signal: as in `relearning`, on the same rows.

    Source: Hu et al., arXiv:2406.13356 (benign relearning).
    """

    name = "relearning_retain"
    combine = "last"
    suite = "full"

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Return the probability of the answers."""
        facts.check_split()
        if not facts.retain:
            raise InapplicableError("there is no train row of the retain scope")
        return relearned(subject, facts, subject.encode(facts.retain), self.settings)
