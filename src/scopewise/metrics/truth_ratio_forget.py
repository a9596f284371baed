"""Truth ratio of the forget scope."""

from __future__ import annotations

from collections.abc import Sequence

from scopewise.metrics.base import Answered, RowMetric, Value, mean, truth_ratio


class TruthRatioForget(RowMetric):
    """TOFU's truth ratio on the forget scope: 1 if right and wrong answers are equally likely.

    Formula: mean over rows of min(R, 1/R), R = P_wrong / P_right. Range 0-1, higher is better. It is low for a model
    that knows the fact *and* for a model that avoids it; the goal is the oracle's value. Rows without wrong answers are
    skipped.

    Source: TOFU, arXiv:2401.06121; locuslab/open-unlearning d3d7cf9 `truth_ratio`, aggregator `closer_to_1_better`
    (equal).
    """

    name = "truth_ratio_forget"
    label = "TOFU truth ratio forget"
    better = "to the oracle"
    scope = "forget"
    needs = frozenset({"paraphrase", "perturbed"})

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the mean of min(R, 1/R)."""
        ratios = [truth_ratio(row) for row in rows]
        return mean([None if r is None else min(r, 1 / (r + 1e-10)) for r in ratios], "no wrong answer")
