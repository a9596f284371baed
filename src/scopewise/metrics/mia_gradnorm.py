"""Membership inference by gradient norms."""

from __future__ import annotations

from scopewise.metrics.base import Answered, MembershipMetric


class MIAGradnorm(MembershipMetric):
    """Membership inference by the norm of the loss's gradient.

    Formula: area under the ROC curve of the norm of the gradient of the answer's mean NLL (mean over all parameter
    tensors of the norm of each), forget rows against holdout rows, which no model has seen. Range 0-1: 1 if members are
    obvious, 0.5 at chance. A model that never saw the forget rows is not at 0.5 if the two sets of rows differ, so
    compare with the oracle's value (`privleak`). Rows without tokens are skipped; None without holdout rows. The
    end-of-sequence token is not counted. It needs a backward pass for each row.

    Source: Wang et al., arXiv:2402.17012; locuslab/open-unlearning d3d7cf9 `mia_gradnorm` (p = 2; equal, except that
    dropout is on there).
    """

    name = "mia_gradnorm"
    label = "MIA gradient norm"
    needs = frozenset({"gradient_norm"})

    def score(self, row: Answered) -> float | None:
        """Return the score."""
        return row.gradient_norm
