"""Membership inference by loss and compressed length."""

from __future__ import annotations

import zlib

from scopewise.metrics.base import Answered, MembershipMetric


class MIAZlib(MembershipMetric):
    """Whether the loss, over what a compressor makes of the text, tells forget rows from rows no model saw.

    Formula: area under the ROC curve of the mean NLL of the answer divided by the bytes of its zlib-compressed text,
    forget rows against holdout rows. Range 0-1: 1 where membership is obvious, .5 at chance; what a model that never
    saw the forget rows gives depends on how alike the two sets are, so read it beside the oracle's (`privleak`). Rows
    without tokens are skipped; None without holdout rows.

    Source: Carlini et al., arXiv:2012.07805; locuslab/open-unlearning d3d7cf9 `mia_zlib` (equal, `eos: true`).
    """

    name = "mia_zlib"

    def score(self, row: Answered) -> float | None:
        """Return the score."""
        log_probs = row.scored.log_probs
        if not log_probs:
            return None
        return -sum(log_probs) / len(log_probs) / len(zlib.compress(row.row.answer.encode("utf-8")))
