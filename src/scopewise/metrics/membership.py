"""Membership inference: how well a score tells forget rows from rows that no model saw, and what of it is left."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, Interval

from scopewise.data.rows import FORGET, HOLDOUT
from scopewise.metrics.base import TINY, Aggregate, Answered, ReferenceValues, RowMetric, Value
from scopewise.statistics import interval_of


@dataclass(frozen=True, kw_only=True)
class MembershipMetric(RowMetric):
    """Base of membership attacks: `score` is higher the less a row looks like training data.

    The value is the area under the ROC curve of forget rows against holdout rows, which no model has seen. Range 0-1: 1
    if members are obvious, 0.5 at chance. A model that never saw the forget rows is not at 0.5 if the two sets of rows
    differ, so compare with the oracle's value (`privleak`). Rows without tokens are skipped; None without holdout rows.

    Attributes:
        resamples: Bootstrap resamples of its interval. Default: ours.
    """

    resamples: Annotated[int, Ge(1)] = 500

    scope = "membership"
    better = "to the oracle"

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the area under the ROC curve, 0 to 1."""
        scores = {s: [self.score(row) for row in rows if row.row.scope == s] for s in (FORGET, HOLDOUT)}
        finite = {s: [v for v in found if v is not None and math.isfinite(v)] for s, found in scores.items()}
        missing = len(rows) - sum(map(len, finite.values()))
        skipped = (f"{missing} of {len(rows)} rows: {self.missing}",) if missing else ()
        if not finite[FORGET] or not finite[HOLDOUT]:
            return Value(None, (), (*skipped, "no row to tell apart"))
        samples = [np.array(finite[FORGET]), np.array(finite[HOLDOUT])]
        if any(len(sample) == 1 for sample in samples):
            return Value(auc(*samples), (), skipped)
        interval = interval_of(lambda s: auc(s[0], s[1]), samples, self.resamples)
        return Value(interval.value, (), skipped, interval.low, interval.high)


def auc(members: np.ndarray, others: np.ndarray) -> float:
    """Return the chance that another scores higher than a member; ties count half."""
    order = np.sort(members)
    below = np.searchsorted(order, others, side="left")
    upto = np.searchsorted(order, others, side="right")
    return float((below + upto).sum() / (2 * len(members) * len(others)))


class MIALoss(MembershipMetric):
    """Membership inference by loss: does the loss of the answer separate forget rows from holdout rows?

    Score: the mean NLL of the answer.

    Source: Yeom et al., arXiv:1709.01604; locuslab/open-unlearning d3d7cf9 `mia_loss` (equal with `eos: true`).
    """

    name = "mia_loss"
    label = "MIA loss"

    def score(self, row: Answered) -> float | None:
        """Return the mean NLL in nats."""
        log_probs = row.scored.log_probs
        return -sum(log_probs) / len(log_probs) if log_probs else None


class MIAZlib(MembershipMetric):
    """Membership inference by loss relative to the compressed length of the answer.

    Score: the mean NLL of the answer divided by the bytes of its zlib-compressed text.

    Source: Carlini et al., arXiv:2012.07805; locuslab/open-unlearning d3d7cf9 `mia_zlib` (equal with `eos: true`).
    """

    name = "mia_zlib"
    label = "MIA zlib"

    def score(self, row: Answered) -> float | None:
        """Return the mean NLL per byte."""
        log_probs = row.scored.log_probs
        if not log_probs:
            return None
        return -sum(log_probs) / len(log_probs) / len(zlib.compress(row.row.answer.encode("utf-8")))


@dataclass(frozen=True, kw_only=True)
class LowestTokens(MembershipMetric):
    """Base of the attacks by the least likely tokens, at least one. The end-of-sequence token is not counted.

    Attributes:
        fraction: Share (0-1) of the tokens that count, the least likely. Default: the configuration of
            open-unlearning.
    """

    fraction: Annotated[float, Interval(gt=0, le=1)] = 0.4

    def score(self, row: Answered) -> float | None:
        """Return minus the mean of the lowest `fraction` of the tokens' values."""
        values = sorted(self.values(row))
        lowest = values[: max(1, int(self.fraction * len(values)))]
        return -math.fsum(lowest) / len(lowest) if lowest else None

    def values(self, row: Answered) -> Sequence[float]:
        """Return the value of each token."""
        raise NotImplementedError


class MIAMinK(LowestTokens):
    """Membership inference by the least likely tokens of the answer.

    Score: minus the mean of the lowest `fraction` of the answer's token log-probabilities (at least one). The
    end-of-sequence token is not counted.

    Source: Shi et al., arXiv:2310.16789; locuslab/open-unlearning d3d7cf9 `mia_min_k` (equal; k = 0.4 is from its
    configuration).
    """

    name = "mia_min_k"
    label = "MIA min-k"

    def values(self, row: Answered) -> Sequence[float]:
        """Return the log-probabilities."""
        return row.log_probs


class MIAMinKPlusPlus(LowestTokens):
    """Membership inference by the least likely tokens, each standardised by the predicted distribution.

    Score: minus the mean of the lowest `fraction` of (log P(y_t) - µ_t) / σ_t. µ and σ are the mean and standard
    deviation of log P over the vocabulary, weighted by P. The end-of-sequence token is not counted.

    Source: Zhang et al., arXiv:2404.02936; locuslab/open-unlearning d3d7cf9 `mia_min_k_plus_plus` (equal; the variance
    is at least 1e-6).
    """

    name = "mia_min_k_plus_plus"
    label = "MIA min-k++"
    needs = frozenset({"moments"})

    def values(self, row: Answered) -> Sequence[float]:
        """Return the standardised log-probabilities."""
        scored = row.scored.without_end()
        parts = zip(scored.log_probs, scored.means, scored.variances, strict=True)
        return [(lp - mean) / math.sqrt(max(variance, 1e-6)) for lp, mean, variance in parts]


class MIAReference(MembershipMetric):
    """Membership inference by loss relative to a reference model that never saw the forget rows.

    Score: the mean NLL of the answer minus its mean NLL under `evaluate.reference_model`; None without that model.

    Source: Carlini et al., arXiv:2112.03570; locuslab/open-unlearning d3d7cf9 `mia_reference` (equal with `eos: true`).
    """

    name = "mia_reference"
    label = "MIA reference"
    missing = "no answer token, or no evaluate.reference_model"
    needs = frozenset({"reference_model"})

    def score(self, row: Answered) -> float | None:
        """Return the difference in nats per token."""
        own, other = row.scored.log_probs, row.reference_log_probs
        return (sum(other) - sum(own)) / len(own) if own and other else None


class MIAGradnorm(MembershipMetric):
    """Membership inference by the norm of the loss's gradient.

    Score: the norm of the gradient of the answer's mean NLL (mean over all parameter tensors of the norm of each). The
    end-of-sequence token is not counted. It needs a backward pass for each row.

    Source: Wang et al., arXiv:2402.17012; locuslab/open-unlearning d3d7cf9 `mia_gradnorm` (p = 2; equal, except that
    dropout is on there).
    """

    name = "mia_gradnorm"
    label = "MIA gradient norm"
    needs = frozenset({"gradient_norm"})

    def score(self, row: Answered) -> float | None:
        """Return the norm."""
        return row.gradient_norm


@dataclass(frozen=True, kw_only=True)
class AgainstReference(Aggregate):
    """Base of metrics of how membership differs from a model that never saw the forget rows.

    AUC is `mia_min_k` of the model and AUC_ref that of the reference. Without a reference AUC_ref is 0.5, and the note
    says so; even a perfectly unlearned model is then not at 0 if forget and holdout rows differ.
    """

    unit = "%"
    better = "to the oracle"

    def combine(self, values: Mapping[str, Value], reference: ReferenceValues | None, split: str) -> Value | None:
        """Return the difference in percent; None where the AUC was not measured."""
        own = values.get(f"mia_min_k/{split}")
        if own is None or own.value is None:
            return own and Value(None, (), own.skipped)
        other = reference.values.get(f"mia_min_k/{split}") if reference else None
        known = None if other is None else other.value
        ref = 0.5 if known is None else known
        ends = [self.leak(end, ref) for end in (own.low, own.high) if end is not None]
        note = "" if known is not None else "no reference: 0.5 stands for it"
        return Value(self.leak(own.value, ref), (), own.skipped, min(ends, default=None), max(ends, default=None), note)

    def leak(self, auc: float, ref: float) -> float:
        """Return the difference from the AUC and the reference's."""
        raise NotImplementedError


class Privleak(AgainstReference):
    """How much membership inference differs from a model that never saw the forget rows, in percent.

    Formula: 100 · ((1 - AUC) - (1 - AUC_ref)) / (1 - AUC_ref). The goal is 0. It is -100 if members are perfectly
    separated, and positive if the forget rows look *less* familiar than to a model that never saw them.

    Source: MUSE, Shi et al., arXiv:2407.06460; locuslab/open-unlearning d3d7cf9 `privleak` (equal).
    """

    name = "privleak"
    label = "PrivLeak"
    headline = ("",)

    def leak(self, auc: float, ref: float) -> float:
        """Return the leakage in percent."""
        return 100.0 * (ref - auc) / (1 - ref + TINY)


class RelDiff(AgainstReference):
    """Relative difference of the membership AUC from a model that never saw the forget rows, in percent.

    Formula: 100 · (AUC - AUC_ref) / AUC_ref. The goal is 0; positive means that membership shows more than in the
    reference.

    Source: MUSE, Shi et al., arXiv:2407.06460; locuslab/open-unlearning d3d7cf9 `rel_diff` (equal).
    """

    name = "rel_diff"
    label = "RelDiff"

    def leak(self, auc: float, ref: float) -> float:
        """Return the relative difference in percent."""
        return 100.0 * (auc - ref) / (ref + TINY)
