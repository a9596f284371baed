"""Truth ratios: wrong answers against the right one; and the test of their distribution, forget quality."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import ks_2samp

from scopewise.data.rows import FORGET, Row
from scopewise.metrics.base import TINY, Aggregate, Answered, ReferenceValues, RowMetric, Value


class TruthMetric(RowMetric):
    """Base of truth ratios.

    Rows without wrong answers are skipped.
    """

    needs = frozenset({"paraphrase", "perturbed"})
    missing = "no wrong answer"

    def score(self, row: Answered) -> float | None:
        """Return `of` of P(right answer) and P(wrong answers), 0-1; None where the row has no wrong answer.

        The right answer is the paraphrase where there is one; of the wrong ones the geometric mean is taken; all by the
        mean log-probability of their tokens.
        """
        right = row.paraphrase or row.scored
        if not row.perturbed or not right.log_probs or not all(wrong.log_probs for wrong in row.perturbed):
            return None
        means = [math.fsum(wrong.log_probs) / len(wrong.log_probs) for wrong in row.perturbed]
        return self.of(
            math.exp(math.fsum(right.log_probs) / len(right.log_probs)), math.exp(math.fsum(means) / len(means))
        )

    def of(self, right: float, wrong: float) -> float:
        """Return the value of a row from both probabilities."""
        raise NotImplementedError


class TruthRatio(TruthMetric):
    """How much more likely a paraphrase of the right answer is than wrong answers of the same form.

    Formula: mean over rows of P_right / (P_right + P_wrong + 1e-10). P_right is the probability of the paraphrase,
    P_wrong the geometric mean over the wrong answers, each length-normalised. Range 0-1: 1 if the model knows the fact,
    0.5 if it is indifferent. It is near 0 if the model has collapsed and gives neither any probability.

    Source: TOFU, arXiv:2401.06121; locuslab/open-unlearning d3d7cf9 `truth_ratio`, aggregator `prob_mean` (equal). This
    form is from that project's paper, arXiv:2506.12618; TOFU's own two are `truth_ratio_forget` and
    `truth_ratio_retain`.
    """

    name = "truth_ratio"
    label = "Truth ratio"
    better = "higher"
    better_on_forget = "to the oracle"
    scope = "each"

    def of(self, right: float, wrong: float) -> float:
        """Return P_right / (P_right + P_wrong), near 0 if both are."""
        return right / (right + wrong + TINY)


class TruthRatioForget(TruthMetric):
    """TOFU's truth ratio on the forget scope: 1 if right and wrong answers are equally likely.

    Formula: mean over rows of min(R, 1/R), R = P_wrong / P_right. Range 0-1, higher is better. It is low for a model
    that knows the fact *and* for a model that avoids it; the goal is the oracle's value.

    Source: TOFU, arXiv:2401.06121; locuslab/open-unlearning d3d7cf9 `truth_ratio`, aggregator `closer_to_1_better`
    (equal).
    """

    name = "truth_ratio_forget"
    label = "TOFU truth ratio forget"
    better = "to the oracle"
    scope = "forget"

    def of(self, right: float, wrong: float) -> float:
        """Return min(R, 1/R)."""
        ratio = wrong / (right + TINY)
        return min(ratio, 1 / (ratio + TINY))


class TruthRatioRetain(TruthMetric):
    """TOFU's truth ratio on every other scope: how far the right answer is ahead of the wrong ones.

    Formula: mean over rows of max(0, 1 - R), R = P_wrong / P_right. Range 0-1, higher is better: 1 if the model knows
    the fact, 0 if it is indifferent. There is one value for each scope except the forget scope.

    Source: TOFU, arXiv:2401.06121; locuslab/open-unlearning d3d7cf9 `truth_ratio`, aggregator `true_better` (equal).
    """

    name = "truth_ratio_retain"
    label = "TOFU truth ratio"
    better = "higher"
    scope = "each"

    def of(self, right: float, wrong: float) -> float:
        """Return max(0, 1 - R)."""
        return max(0.0, 1 - wrong / (right + TINY))

    def keyed(self, rows: Sequence[Answered], split: str, dropped: Sequence[Row] = ()) -> dict[str, Value]:
        """Return the values without the forget scope, which `truth_ratio_forget` measures."""
        kept = [row for row in rows if row.row.scope != FORGET]
        return super().keyed(kept, split, [row for row in dropped if row.scope != FORGET])


class TruthRatioRaw(TruthMetric):
    """The ratio R = P_wrong / P_right of each forget row, as input for `forget_quality`.

    Range 0 to infinity: below 1 the model prefers the truth. The mean says little; `forget_quality` tests the
    distribution over rows.

    Source: TOFU, arXiv:2401.06121; locuslab/open-unlearning d3d7cf9 `truth_ratio` (its `value_by_index`).
    """

    name = "truth_ratio_raw"
    label = "Raw truth ratio"
    better = "to the oracle"
    scope = "forget"

    def of(self, right: float, wrong: float) -> float:
        """Return R."""
        return wrong / (right + TINY)


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
