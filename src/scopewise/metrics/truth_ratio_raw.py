"""Raw truth ratios."""

from __future__ import annotations

from collections.abc import Sequence

from scopewise.metrics.base import Answered, RowMetric, Value, mean, truth_ratio


class TruthRatioRaw(RowMetric):
    """The ratio R = P_wrong / P_right of each forget row, as input for `forget_quality`.

    Range 0 to infinity: below 1 the model prefers the truth. The mean says little; `forget_quality` tests the
    distribution over rows. Rows without wrong answers are skipped.

    Source: TOFU, arXiv:2401.06121; locuslab/open-unlearning d3d7cf9 `truth_ratio` (its `value_by_index`).
    """

    name = "truth_ratio_raw"
    label = "Raw truth ratio"
    better = "to the oracle"
    scope = "forget"
    needs = frozenset({"paraphrase", "perturbed"})

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the mean of R."""
        return mean([truth_ratio(row) for row in rows], "no wrong answer")
