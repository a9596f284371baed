"""ROUGE-L recall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rouge_score.rouge_scorer import RougeScorer

from scopewise.metrics.base import Answered, RowMetric, Value, mean


@dataclass(frozen=True, kw_only=True)
class RougeLRecall(RowMetric):
    """ROUGE-L recall of the text generated greedily from the prompt.

    Share of the true answer's words that are in its longest common subsequence with the generated text, with stemming,
    by `rouge-score`; mean over rows. Range 0-1: perfect recall scores 1, unrelated text about 0. It should be low on
    the forget scope and high elsewhere. Recall does not penalise additional text. True answers without a word are
    skipped.

    Source: Lin 2004; TOFU, arXiv:2401.06121; locuslab/open-unlearning d3d7cf9 `rouge` (rougeL_recall, TOFU's, equal).

    Attributes:
        use_stemmer: Whether words are compared without their endings (Porter). Default: the reference code of TOFU.
    """

    use_stemmer: bool = True

    name = "rouge_l_recall"
    label = "ROUGE-L recall"
    better = "higher"
    better_on_forget = "to the oracle"
    scope = "each"
    needs = frozenset({"generated"})

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the mean recall."""
        scorer = RougeScorer(["rougeL"], use_stemmer=self.use_stemmer)

        def one(row: Answered) -> float | None:
            if not any(c.isalnum() for c in row.row.answer):
                return None
            return float(scorer.score(row.row.answer, row.generated or "")["rougeL"].recall)

        return mean([one(row) for row in rows], "no word in the answer")
