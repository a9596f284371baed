"""Membership inference by loss and compressed length."""

from __future__ import annotations

import zlib

from scopewise.metrics.base import Answered, MembershipMetric


class MIAZlib(MembershipMetric):
    """Membership inference by loss relative to the compressed length of the answer.

    Formula: area under the ROC curve of the mean NLL of the answer divided by the bytes of its zlib-compressed text,
    forget rows against holdout rows, which no model has seen. Range 0-1: 1 if members are obvious, 0.5 at chance. A
    model that never saw the forget rows is not at 0.5 if the two sets of rows differ, so compare with the oracle's
    value (`privleak`). Rows without tokens are skipped; None without holdout rows.

    Source: Carlini et al., arXiv:2012.07805; locuslab/open-unlearning d3d7cf9 `mia_zlib` (equal with `eos: true`).
    """

    name = "mia_zlib"
    label = "MIA zlib"

    def score(self, row: Answered) -> float | None:
        """Return the score."""
        log_probs = row.scored.log_probs
        if not log_probs:
            return None
        return -sum(log_probs) / len(log_probs) / len(zlib.compress(row.row.answer.encode("utf-8")))
