"""Forget quality."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.stats import ks_2samp

from scopewise.metrics.base import Aggregate, ReferenceValues, Value


class ForgetQuality(Aggregate):
    """p-value of the hypothesis that the truth ratios of the forget rows come from a model that never saw them.

    Formula: two-sided Kolmogorov-Smirnov test of the raw truth ratios R (not min(R, 1/R)) against those of the
    reference. Range 0-1, higher is better: 1 if the distributions are equal. Below 0.05 they differ, in either
    direction, so a model that over-unlearned fails like one that remembers. A p-value such as 1e-239 on 400 rows only
    says that the samples do not overlap. There is no interval. Without a reference the value is None, and the note says
    so; use `truth_ratio_forget` with its interval instead, or `privleak`, which needs holdout rows.

    Source: TOFU, arXiv:2401.06121; locuslab/open-unlearning d3d7cf9 `ks_test` (equal).
    """

    name = "forget_quality"
    label = "Forget quality"
    better = "higher"
    headline = ("",)

    def combine(self, values: Mapping[str, Value], reference: ReferenceValues | None, split: str) -> Value | None:
        """Return the p-value."""
        own = values.get(f"truth_ratio_raw/{split}")
        if own is None:
            return None
        other = reference.values.get(f"truth_ratio_raw/{split}") if reference else None
        if not own.known:
            return Value(None, (), own.skipped)
        if other is None or not other.known:
            return Value(
                None,
                (),
                ("no reference: forget quality compares with a model that never saw the forget rows",),
                note="nearest substitutes: truth_ratio_forget with its interval, or privleak with holdout rows",
            )
        return Value(float(ks_2samp(np.array(own.known), np.array(other.known)).pvalue), (), own.skipped)
