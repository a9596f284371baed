"""Truth ratio of the retain scopes."""

from __future__ import annotations

from collections.abc import Sequence

from scopewise.data.rows import FORGET, Row
from scopewise.metrics.base import Answered, RowMetric, Value, mean, truth_ratio


class TruthRatioRetain(RowMetric):
    """TOFU's truth ratio on every other scope: how far the right answer is ahead of the wrong ones.

    Formula: mean over rows of max(0, 1 - R), R = P_wrong / P_right. Range 0-1, higher is better: 1 if the model knows
    the fact, 0 if it is indifferent. There is one value for each scope except the forget scope. Rows without wrong
    answers are skipped.

    Source: TOFU, arXiv:2401.06121; locuslab/open-unlearning d3d7cf9 `truth_ratio`, aggregator `true_better` (equal).
    """

    name = "truth_ratio_retain"
    label = "TOFU truth ratio"
    better = "higher"
    scope = "each"
    needs = frozenset({"paraphrase", "perturbed"})

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the mean of max(0, 1 - R)."""
        ratios = [truth_ratio(row) for row in rows]
        return mean([None if r is None else max(0.0, 1 - r) for r in ratios], "no wrong answer")

    def keyed(self, rows: Sequence[Answered], split: str, dropped: Sequence[Row] = ()) -> dict[str, Value]:
        """Return the values without the forget scope, which `truth_ratio_forget` measures."""
        kept = [row for row in rows if row.row.scope != FORGET]
        return super().keyed(kept, split, [row for row in dropped if row.scope != FORGET])
