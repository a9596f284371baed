"""Perplexity of the answer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scopewise.metrics.base import Answered, RowMetric, Value, mean


class Perplexity(RowMetric):
    """Perplexity of the true answers.

    Formula: 2^(-mean log2 P(token)), with the mean taken over the tokens of an answer and then over answers, so it is
    the geometric mean of the answers' perplexities. Range 1 to infinity: 1 for perfect recall, the vocabulary size for
    uniform guessing. It should be high on the forget scope and low on the retain scope. Answers of probability zero are
    skipped and counted; above e^700 the value is None.

    Source: arXiv:2407.01920 section 3; zjunlp/KnowUnDo 92aea2b `run_eval_lora.py` (`ppl`).
    """

    name = "perplexity"
    label = "PPL"
    better = "lower"
    better_on_forget = "to the oracle"
    headline = ("retain",)
    scope = "each"

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return exp of the mean over answers of their mean negative log-likelihood; `per_row` is in nats."""
        nll = mean(
            [-math.fsum(r.log_probs) / len(r.log_probs) if r.log_probs else None for r in rows],
            "no answer token, or an answer of probability zero",
        )
        if nll.value is None:
            return nll
        if nll.value > 700:
            return Value(None, nll.per_row, (*nll.skipped, "perplexity above e^700"))
        low, high = (None if end is None or end > 700 else math.exp(end) for end in (nll.low, nll.high))
        return Value(math.exp(nll.value), nll.per_row, nll.skipped, low, high)
