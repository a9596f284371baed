"""Relative difference of membership."""

from __future__ import annotations

from collections.abc import Mapping

from scopewise.metrics.base import Aggregate, ReferenceValues, Value, against_reference


class RelDiff(Aggregate):
    """Relative difference of the membership AUC from a model that never saw the forget rows, in percent.

    Formula: 100 · (AUC - AUC_ref) / AUC_ref, where AUC is `mia_min_k` of the model and AUC_ref that of the reference.
    The goal is 0; positive means that membership shows more than in the reference. Without a reference AUC_ref is 0.5,
    and the note says so; even a perfectly unlearned model is then not at 0 if forget and holdout rows differ.

    Source: MUSE, Shi et al., arXiv:2407.06460; locuslab/open-unlearning d3d7cf9 `rel_diff` (equal).
    """

    name = "rel_diff"
    label = "RelDiff"
    unit = "%"
    better = "to the oracle"

    def combine(self, values: Mapping[str, Value], reference: ReferenceValues | None, split: str) -> Value | None:
        """Return the relative difference in percent."""
        return against_reference(f"mia_min_k/{split}", values, reference, lambda a, r: 100.0 * (a - r) / (r + 1e-10))
