"""ROUGE-L recall."""

from __future__ import annotations

from collections.abc import Sequence

from rouge_score.rouge_scorer import RougeScorer

from scopewise.metrics.base import Answered, RowMetric, Value, mean


class RougeLRecall(RowMetric):
    """ROUGE-L recall of the text generated greedily from the prompt.

    Share of the true answer's words that are in its longest common subsequence with the generated text, with stemming,
    by `rouge-score`; mean over rows. Range 0-1: perfect recall scores 1, unrelated text about 0. It should be low on
    the forget scope and high elsewhere. Recall does not penalise additional text. True answers without a word are
    skipped.

    Source: Lin 2004; TOFU, arXiv:2401.06121; locuslab/open-unlearning d3d7cf9 `rouge` (rougeL_recall, TOFU's, equal).
    """

    name = "rouge_l_recall"
    scope = "each"
    higher_is_better = None
    needs = frozenset({"generated"})

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the mean recall."""
        scorer = RougeScorer(["rougeL"], use_stemmer=True)

        def one(row: Answered) -> float | None:
            if not any(c.isalnum() for c in row.row.answer):
                return None
            return float(scorer.score(row.row.answer, row.generated or "")["rougeL"].recall)

        return mean([one(row) for row in rows], "no word in the answer")
