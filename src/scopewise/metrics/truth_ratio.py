"""Truth ratio."""

from __future__ import annotations

from collections.abc import Sequence

from scopewise.metrics.base import Answered, RowMetric, Value, mean, truth_ratio


class TruthRatio(RowMetric):
    """How much likelier a right answer in other words is than wrong ones of the same form.

    Formula: mean over rows of P_right / (P_right + P_wrong), P_right of the paraphrase, P_wrong the geometric mean
    over the wrong answers, each length-normalised. Range 0-1: knows the fact 1, indifferent .5, low (down to the
    oracle's) is wanted on the forget scope, high elsewhere. A row without wrong answers is skipped.

    Source: TOFU, arXiv:2401.06121; locuslab/open-unlearning d3d7cf9 `truth_ratio`, aggregator `prob_mean` (equal). It
    is the form of that project's paper, arXiv:2506.12618; TOFU's own two are `truth_ratio_forget` and
    `truth_ratio_retain`.
    """

    name = "truth_ratio"
    scope = "each"
    higher_is_better = None
    needs = frozenset({"paraphrase", "perturbed"})

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the mean of 1 / (1 + R), R = P_wrong / P_right."""
        ratios = [truth_ratio(row) for row in rows]
        return mean([None if r is None else 1 / (1 + r) for r in ratios], "no wrong answer")
