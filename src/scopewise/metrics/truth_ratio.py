"""Truth ratio."""

from __future__ import annotations

from collections.abc import Sequence

from scopewise.metrics.base import TINY, Answered, RowMetric, Value, mean, right_and_wrong


class TruthRatio(RowMetric):
    """How much likelier a right answer in other words is than wrong ones of the same form.

    Formula: mean over rows of P_right / (P_right + P_wrong), P_right of the paraphrase, P_wrong the geometric mean
    over the wrong answers, each length-normalised. Range 0-1: knows the fact 1, indifferent .5, low (down to the
    oracle's) is wanted on the forget scope, high elsewhere; near 0 where a model has collapsed so far that neither has
    a probability (1e-10 is added to the sum). A row without wrong answers is skipped.

    Source: TOFU, arXiv:2401.06121; locuslab/open-unlearning d3d7cf9 `truth_ratio`, aggregator `prob_mean` (equal). It
    is the form of that project's paper, arXiv:2506.12618; TOFU's own two are `truth_ratio_forget` and
    `truth_ratio_retain`.
    """

    name = "truth_ratio"
    scope = "each"
    higher_is_better = None
    needs = frozenset({"paraphrase", "perturbed"})

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the mean of P_right / (P_right + P_wrong), near 0 where both are."""

        def one(row: Answered) -> float | None:
            both = right_and_wrong(row)
            return None if both is None else both[0] / (both[0] + both[1] + TINY)

        return mean([one(row) for row in rows], "no wrong answer")
