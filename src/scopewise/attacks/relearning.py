"""Relearning on a part of the forget scope."""

from __future__ import annotations

from scopewise.attacks.base import Attack, Facts, Outcome
from scopewise.attacks.fine_tune import relearned
from scopewise.models.engine import Engine


class Relearning(Attack):
    """Fine-tune briefly on what the attacker holds of the forget scope, and ask for the instances he does not hold.

    Signal: probability of the answer, after each of several numbers of steps. What comes back was suppressed, not removed:
    the oracle, given the same steps on the same rows, cannot know the other instances.

    Source: Hu et al., arXiv:2406.13356 (relearning); Deeb & Roger, arXiv:2410.08827 (held-out facts). Deviations: split by
    instance, where theirs is by question; all parameters; the anchors of the scale are attacked as well.
    """

    name = "relearning"
    combine = "last"
    suite = "quick"

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Return the probability of the answers of the other instances."""
        facts.check_split()
        return relearned(subject, facts, subject.encode(facts.held), self.settings)
