"""Membership inference by the least likely tokens."""

from __future__ import annotations

from collections.abc import Sequence

from scopewise.metrics.base import Answered, RowMetric, Value, lowest_share, membership_auc


class MIAMinK(RowMetric):
    """Whether the least likely tokens tell forget rows from rows no model saw.

    Formula: area under the ROC curve of minus the mean of the lowest 40 % of the answer's token log-probabilities (at
    least one), forget rows against holdout rows. Range 0-1: 1 where membership is obvious, .5 at chance; what a model
    that never saw the forget rows gives depends on how alike the two sets are, so read it beside the oracle's
    (`privleak`). Rows without tokens are skipped; None without holdout rows.

    Source: Shi et al., arXiv:2310.16789; locuslab/open-unlearning d3d7cf9 `mia_min_k` (equal; k = .4 is its
    configuration). Without the end of sequence.
    """

    name = "mia_min_k"
    scope = "membership"
    higher_is_better = None

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the area under the curve."""
        return membership_auc(rows, _score, "no answer token")


def _score(row: Answered) -> float | None:
    return lowest_share(row.log_probs)
