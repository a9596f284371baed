"""Probability of the true answers: by themselves, in other words, and among wrong ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scopewise.metrics.base import TINY, Answered, KnowledgeMetric, RowMetric, Value, answer_probability, mean


class Probability(KnowledgeMetric):
    """Length-normalised probability of the true answers.

    Formula: mean over rows of exp(mean over answer tokens of log P(y_t | x, y_<t)). It includes the end-of-sequence
    token if `evaluate.eos` is set. Range 0-1: perfect recall scores 1, a random model 1/V, a model that never saw the
    facts in between. Rows without tokens are skipped.

    Source: TOFU, Maini et al., arXiv:2401.06121; locuslab/open-unlearning d3d7cf9 `probability` (equal with `eos:
    true`).
    """

    name = "probability"
    label = "Probability"

    def score(self, row: Answered) -> float | None:
        """Return the geometric mean of the tokens' probabilities."""
        return answer_probability(row.scored.log_probs)


class ProbabilityParaphrase(KnowledgeMetric):
    """Length-normalised probability of a paraphrase of the true answer: it tests knowledge rather than wording.

    Formula: as `probability`, but of the row's paraphrase. Range 0-1. Rows without a paraphrase are skipped.

    Source: TOFU, arXiv:2401.06121; locuslab/open-unlearning d3d7cf9 `probability` on `paraphrased_answer` (equal).
    """

    name = "probability_paraphrase"
    label = "Probability of the paraphrase"
    needs = frozenset({"paraphrase"})
    missing = "no paraphrase"

    def score(self, row: Answered) -> float | None:
        """Return the geometric mean of the tokens' probabilities."""
        return answer_probability(row.paraphrase.log_probs) if row.paraphrase else None


class ProbabilityNormalised(KnowledgeMetric):
    """Probability of the true answer as a share of the probabilities of all options.

    Formula: mean over rows of P(y) / (P(y) + Σ P(wrong)), each P length-normalised as in `probability`. Range 0-1: 1 if
    the model is certain of the truth, 1/(number of options) if it is indifferent. Rows without wrong answers are
    skipped.

    Source: TOFU, arXiv:2401.06121 (real authors and world facts); locuslab/open-unlearning d3d7cf9
    `probability_w_options` (equal).
    """

    name = "probability_normalised"
    label = "Normalised probability"
    needs = frozenset({"perturbed"})
    missing = "no wrong answer to choose among"

    def score(self, row: Answered) -> float | None:
        """Return the share."""
        right = answer_probability(row.scored.log_probs)
        wrong = [answer_probability(w.log_probs) for w in row.perturbed]
        if right is None or not wrong or None in wrong:
            return None
        return right / (right + sum(p for p in wrong if p is not None) + TINY)


class MultipleChoiceAccuracy(KnowledgeMetric):
    """Share of questions for which the right option is the most likely one, in percent.

    Formula: mean over rows of 100 · [log P(y | x) > log P(wrong | x) for each wrong option], log P summed over an
    option's tokens. If n options tie for the best, the right one counts 1/n. Range 0-100: a model that is certain of
    the truth scores 100, a uniform model 100/(number of options), a model that never saw the facts about the same;
    below chance means over-unlearned. Rows without wrong options are skipped.

    Source: WMDP, arXiv:2403.03218; lm-evaluation-harness 0.4.13 `acc` of `multiple_choice` (equal except for ties,
    where it takes the first option).
    """

    name = "multiple_choice_accuracy"
    label = "Multiple choice"
    unit = "%"
    headline = ("forget", "retain")
    needs = frozenset({"perturbed"})
    missing = "no wrong option to choose among"

    def score(self, row: Answered) -> float | None:
        """Return 100 if the right option is the most likely one, else 0."""
        options = [row.log_probs, *(wrong.without_end().log_probs for wrong in row.perturbed)]
        if len(options) < 2 or not all(options):
            return None
        right, *wrong = map(math.fsum, options)
        best = max(wrong)
        return 0.0 if right < best else 100.0 / (1 + sum(w == right for w in wrong))


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
