"""Membership inference by the least likely tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval

from scopewise.metrics.base import Answered, MembershipMetric, lowest_share


@dataclass(frozen=True, kw_only=True)
class MIAMinK(MembershipMetric):
    """Membership inference by the least likely tokens of the answer.

    Formula: area under the ROC curve of minus the mean of the lowest `fraction` of the answer's token log-probabilities (at
    least one), forget rows against holdout rows, which no model has seen. Range 0-1: 1 if members are obvious, 0.5 at
    chance. A model that never saw the forget rows is not at 0.5 if the two sets of rows differ, so compare with the
    oracle's value (`privleak`). Rows without tokens are skipped; None without holdout rows. The end-of-sequence token
    is not counted.

    Source: Shi et al., arXiv:2310.16789; locuslab/open-unlearning d3d7cf9 `mia_min_k` (equal; k = 0.4 is from its
    configuration).

    Attributes:
        fraction: Share (0-1) of the tokens that count, the least likely. Default: the configuration of
            open-unlearning.
    """

    fraction: Annotated[float, Interval(gt=0, le=1)] = 0.4

    name = "mia_min_k"
    label = "MIA min-k"

    def score(self, row: Answered) -> float | None:
        """Return the score."""
        return lowest_share(row.log_probs, self.fraction)
