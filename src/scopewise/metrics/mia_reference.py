"""Membership inference against a reference model."""

from __future__ import annotations

from scopewise.metrics.base import Answered, MembershipMetric


class MIAReference(MembershipMetric):
    """Membership inference by loss relative to a reference model that never saw the forget rows.

    Formula: area under the ROC curve of the mean NLL of the answer minus its mean NLL under `evaluate.reference_model`,
    forget rows against holdout rows, which no model has seen. Range 0-1: 1 if members are obvious, 0.5 at chance. A
    model that never saw the forget rows is not at 0.5 if the two sets of rows differ, so compare with the oracle's
    value (`privleak`). Rows without tokens are skipped; None without holdout rows or without a reference model.

    Source: Carlini et al., arXiv:2112.03570; locuslab/open-unlearning d3d7cf9 `mia_reference` (equal with `eos: true`).
    """

    name = "mia_reference"
    label = "MIA reference"
    missing = "no answer token, or no evaluate.reference_model"
    needs = frozenset({"reference_model"})

    def score(self, row: Answered) -> float | None:
        """Return the score."""
        own, other = row.scored.log_probs, row.reference_log_probs
        return (sum(other) - sum(own)) / len(own) if own and other else None
