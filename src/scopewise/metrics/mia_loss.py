"""Membership inference by loss."""

from __future__ import annotations

from collections.abc import Sequence

from scopewise.metrics.base import Answered, RowMetric, Value, membership_auc


class MIALoss(RowMetric):
    """Whether the loss of the answer tells forget rows from rows no model saw.

    Formula: area under the ROC curve of the mean NLL of the answer, forget rows against holdout rows. Range 0-1: 1
    where membership is obvious, .5 at chance; what a model that never saw the forget rows gives depends on how alike
    the two sets are, so read it beside the oracle's (`privleak`). Rows without tokens are skipped; None without
    holdout rows.

    Source: Yeom et al., arXiv:1709.01604; locuslab/open-unlearning d3d7cf9 `mia_loss` (equal, `eos: true`).
    """

    name = "mia_loss"
    scope = "membership"
    higher_is_better = None

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the area under the curve."""
        return membership_auc(rows, _score, "no answer token")


def _score(row: Answered) -> float | None:
    log_probs = row.scored.log_probs
    return -sum(log_probs) / len(log_probs) if log_probs else None
