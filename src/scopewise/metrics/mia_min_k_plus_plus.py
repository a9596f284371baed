"""Membership inference by standardised tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval

from scopewise.metrics.base import Answered, MembershipMetric, lowest_share


@dataclass(frozen=True, kw_only=True)
class MIAMinKPlusPlus(MembershipMetric):
    """Membership inference by the least likely tokens, each standardised by the predicted distribution.

    Formula: area under the ROC curve of minus the mean of the lowest `fraction` of (log P(y_t) - µ_t) / σ_t, forget rows
    against holdout rows, which no model has seen. µ and σ are the mean and standard deviation of log P over the
    vocabulary, weighted by P. Range 0-1: 1 if members are obvious, 0.5 at chance. A model that never saw the forget
    rows is not at 0.5 if the two sets of rows differ, so compare with the oracle's value (`privleak`). Rows without
    tokens are skipped; None without holdout rows. The end-of-sequence token is not counted.

    Source: Zhang et al., arXiv:2404.02936; locuslab/open-unlearning d3d7cf9 `mia_min_k_plus_plus` (equal; the variance
    is at least 1e-6).

    Attributes:
        fraction: Share (0-1) of the tokens that count, the least likely. Default: the configuration of
            open-unlearning.
    """

    fraction: Annotated[float, Interval(gt=0, le=1)] = 0.4

    name = "mia_min_k_plus_plus"
    label = "MIA min-k++"
    needs = frozenset({"moments"})

    def score(self, row: Answered) -> float | None:
        """Return the score."""
        scored = row.scored.without_end()
        parts = zip(scored.log_probs, scored.means, scored.variances, strict=True)
        return lowest_share(
            [(lp - mean) / math.sqrt(max(variance, 1e-6)) for lp, mean, variance in parts], self.fraction
        )
