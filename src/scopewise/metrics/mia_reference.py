"""Membership inference against a reference model."""

from __future__ import annotations

from scopewise.metrics.base import Answered, MembershipMetric


class MIAReference(MembershipMetric):
    """Whether the loss, minus that of a model that never saw the forget rows, tells them from rows no model saw.

    Formula: area under the ROC curve of the mean NLL of the answer minus its mean NLL under
    `evaluate.reference_model`, forget rows against holdout rows. Range 0-1: 1 where membership is obvious, .5 at
    chance; what a model that never saw the forget rows gives depends on how alike the two sets are, so read it beside
    the oracle's (`privleak`). Rows without tokens are skipped; None without holdout rows.

    Source: Carlini et al., arXiv:2112.03570; locuslab/open-unlearning d3d7cf9 `mia_reference` (equal, `eos: true`).
    None without a reference model.
    """

    name = "mia_reference"
    missing = "no answer token, or no evaluate.reference_model"
    needs = frozenset({"reference_model"})

    def score(self, row: Answered) -> float | None:
        """Return the score."""
        own, other = row.scored.log_probs, row.reference_log_probs
        return (sum(other) - sum(own)) / len(own) if own and other else None
