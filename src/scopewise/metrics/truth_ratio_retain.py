"""Truth ratio of what should stay."""

from __future__ import annotations

from collections.abc import Sequence

from scopewise.data.rows import FORGET, Row
from scopewise.metrics.base import Answered, RowMetric, Value, mean, truth_ratio


class TruthRatioRetain(RowMetric):
    """TOFU's truth ratio on what should stay: how far the right answer is ahead of the wrong ones.

    Formula: mean over rows of max(0, 1 - R), R = P_wrong / P_right. Range 0-1, higher is better: knows the fact 1,
    indifferent 0. Once for each scope but the forget scope. A row without wrong answers is skipped.

    Source: TOFU, arXiv:2401.06121; locuslab/open-unlearning d3d7cf9 `truth_ratio`, aggregator `true_better` (equal).
    """

    name = "truth_ratio_retain"
    scope = "each"
    higher_is_better = True
    needs = frozenset({"paraphrase", "perturbed"})

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the mean of max(0, 1 - R)."""
        ratios = [truth_ratio(row) for row in rows]
        return mean([None if r is None else max(0.0, 1 - r) for r in ratios], "no wrong answer")

    def keyed(self, rows: Sequence[Answered], split: str, dropped: Sequence[Row] = ()) -> dict[str, Value]:
        """Leave the forget scope to `truth_ratio_forget`."""
        kept = [row for row in rows if row.row.scope != FORGET]
        return super().keyed(kept, split, [row for row in dropped if row.scope != FORGET])
