"""Membership inference by standardised tokens."""

from __future__ import annotations

import math

from scopewise.metrics.base import Answered, MembershipMetric, lowest_share


class MIAMinKPlusPlus(MembershipMetric):
    """Whether the least likely tokens, each against what else could stand there, tell forget rows from rows no model saw.

    Formula: area under the ROC curve of minus the mean of the lowest 40 % of (log P(y_t) - µ_t) / σ_t, µ and σ over
    the vocabulary under P, forget rows against holdout rows. Range 0-1: 1 where membership is obvious, .5 at chance;
    what a model that never saw the forget rows gives depends on how alike the two sets are, so read it beside the
    oracle's (`privleak`). Rows without tokens are skipped; None without holdout rows.

    Source: Zhang et al., arXiv:2404.02936; locuslab/open-unlearning d3d7cf9 `mia_min_k_plus_plus` (equal; variance at
    least 1e-6). Without the end of sequence.
    """

    name = "mia_min_k_plus_plus"
    needs = frozenset({"moments"})

    def score(self, row: Answered) -> float | None:
        """Return the score."""
        scored = row.scored.without_end()
        parts = zip(scored.log_probs, scored.means, scored.variances, strict=True)
        return lowest_share([(lp - mean) / math.sqrt(max(variance, 1e-6)) for lp, mean, variance in parts])
