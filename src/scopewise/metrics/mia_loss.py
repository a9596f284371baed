"""Membership inference by loss."""

from __future__ import annotations

from scopewise.metrics.base import Answered, MembershipMetric


class MIALoss(MembershipMetric):
    """Whether the loss of the answer tells forget rows from rows no model saw.

    Formula: area under the ROC curve of the mean NLL of the answer, forget rows against holdout rows. Range 0-1: 1
    where membership is obvious, .5 at chance; what a model that never saw the forget rows gives depends on how alike
    the two sets are, so read it beside the oracle's (`privleak`). Rows without tokens are skipped; None without
    holdout rows.

    Source: Yeom et al., arXiv:1709.01604; locuslab/open-unlearning d3d7cf9 `mia_loss` (equal, `eos: true`).
    """

    name = "mia_loss"

    def score(self, row: Answered) -> float | None:
        """Return the score."""
        log_probs = row.scored.log_probs
        return -sum(log_probs) / len(log_probs) if log_probs else None
