"""Relearning on unrelated text."""

from __future__ import annotations

from scopewise.attacks.base import Attack, Facts, InapplicableError, Outcome
from scopewise.attacks.fine_tune import relearned
from scopewise.models.engine import Engine


class RelearningUnrelated(Attack):
    """Fine-tune briefly on general text that says nothing of the instances, and ask for the forget scope.

    Signal: as in `relearning`, on the same rows. What any fine-tuning brings back was never far away.

    Source: Łucki et al., arXiv:2409.18025 (fine-tuning on unrelated text).
    """

    name = "relearning_unrelated"
    combine = "last"
    suite = "full"

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Return the probability of the answers."""
        facts.check_split()
        if not facts.general:
            raise InapplicableError("the benchmark has no general text; set data.general")
        return relearned(subject, facts, subject.encode(facts.general), self.settings)
