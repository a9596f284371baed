"""Membership inference by gradient norms."""

from __future__ import annotations

from scopewise.metrics.base import Answered, MembershipMetric


class MIAGradnorm(MembershipMetric):
    """Whether the norm of the loss's gradient tells forget rows from rows no model saw.

    Formula: area under the ROC curve of the mean over all parameter tensors of the norm of the gradient of the
    answer's mean NLL, forget rows against holdout rows. Range 0-1: 1 where membership is obvious, .5 at chance; what
    a model that never saw the forget rows gives depends on how alike the two sets are, so read it beside the oracle's
    (`privleak`). Rows without tokens are skipped; None without holdout rows.

    Source: Wang et al., arXiv:2402.17012; locuslab/open-unlearning d3d7cf9 `mia_gradnorm` (p = 2; equal but for
    dropout, which is on there). Without the end of sequence. It needs a backward pass for each row.
    """

    name = "mia_gradnorm"
    needs = frozenset({"gradient_norm"})

    def score(self, row: Answered) -> float | None:
        """Return the score."""
        return row.gradient_norm
