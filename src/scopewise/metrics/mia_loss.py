"""Membership inference by loss."""

from __future__ import annotations

from scopewise.metrics.base import Answered, MembershipMetric


class MIALoss(MembershipMetric):
    """Membership inference by loss: does the loss of the answer separate forget rows from holdout rows?

    Formula: area under the ROC curve of the mean NLL of the answer, forget rows against holdout rows, which no model
    has seen. Range 0-1: 1 if members are obvious, 0.5 at chance. A model that never saw the forget rows is not at 0.5
    if the two sets of rows differ, so compare with the oracle's value (`privleak`). Rows without tokens are skipped;
    None without holdout rows.

    Source: Yeom et al., arXiv:1709.01604; locuslab/open-unlearning d3d7cf9 `mia_loss` (equal with `eos: true`).
    """

    name = "mia_loss"
    label = "MIA loss"

    def score(self, row: Answered) -> float | None:
        """Return the score."""
        log_probs = row.scored.log_probs
        return -sum(log_probs) / len(log_probs) if log_probs else None
