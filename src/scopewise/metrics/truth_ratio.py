"""Truth ratio."""

from __future__ import annotations

from collections.abc import Sequence

from scopewise.metrics.base import TINY, Answered, RowMetric, Value, mean, right_and_wrong


class TruthRatio(RowMetric):
    """How much more likely a paraphrase of the right answer is than wrong answers of the same form.

    Formula: mean over rows of P_right / (P_right + P_wrong + 1e-10). P_right is the probability of the paraphrase,
    P_wrong the geometric mean over the wrong answers, each length-normalised. Range 0-1: 1 if the model knows the fact,
    0.5 if it is indifferent. It should be low on the forget scope, down to the oracle's value, and high elsewhere. It
    is near 0 if the model has collapsed and gives neither any probability. Rows without wrong answers are skipped.

    Source: TOFU, arXiv:2401.06121; locuslab/open-unlearning d3d7cf9 `truth_ratio`, aggregator `prob_mean` (equal). This
    form is from that project's paper, arXiv:2506.12618; TOFU's own two are `truth_ratio_forget` and
    `truth_ratio_retain`.
    """

    name = "truth_ratio"
    label = "Truth ratio"
    better = "higher"
    better_on_forget = "to the oracle"
    scope = "each"
    needs = frozenset({"paraphrase", "perturbed"})

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the mean of P_right / (P_right + P_wrong), near 0 if both are."""

        def one(row: Answered) -> float | None:
            both = right_and_wrong(row)
            return None if both is None else both[0] / (both[0] + both[1] + TINY)

        return mean([one(row) for row in rows], "no wrong answer")
