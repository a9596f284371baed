"""Membership inference by the least likely tokens."""

from __future__ import annotations

from scopewise.metrics.base import Answered, MembershipMetric, lowest_share


class MIAMinK(MembershipMetric):
    """Whether the least likely tokens tell forget rows from rows no model saw.

    Formula: area under the ROC curve of minus the mean of the lowest 40 % of the answer's token log-probabilities (at
    least one), forget rows against holdout rows. Range 0-1: 1 where membership is obvious, .5 at chance; what a model
    that never saw the forget rows gives depends on how alike the two sets are, so read it beside the oracle's
    (`privleak`). Rows without tokens are skipped; None without holdout rows.

    Source: Shi et al., arXiv:2310.16789; locuslab/open-unlearning d3d7cf9 `mia_min_k` (equal; k = .4 is its
    configuration). Without the end of sequence.
    """

    name = "mia_min_k"

    def score(self, row: Answered) -> float | None:
        """Return the score."""
        return lowest_share(row.log_probs)
