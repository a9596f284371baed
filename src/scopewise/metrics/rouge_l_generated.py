"""ROUGE-L of the text generated greedily from the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rouge_score.rouge_scorer import RougeScorer

from scopewise.metrics.base import Answered, RowMetric, Value, mean


@dataclass(frozen=True, kw_only=True)
class RougeLGenerated(RowMetric):
    """ROUGE-L of the text generated greedily from the prompt, in percent.

    F-measure of the longest common subsequence of words with the true answer, without stemming, by `rouge-score`; mean
    over rows. The text is what a user would read. Range 0-100; should be high on the retain scope. Perfect recall
    scores 100, degenerate text about 0, a model that never saw the facts in between. True answers without a word are
    skipped.

    Source: Lin 2004; arXiv:2407.01920 section 3, which does not say which ROUGE-L; we use the F-measure. `rouge` of
    locuslab/open-unlearning d3d7cf9 (rougeL_f1, for MUSE) stems words and is not in percent.

    Attributes:
        use_stemmer: Whether words are compared without their endings (Porter). Default: ours, as `rouge-score`'s.
    """

    use_stemmer: bool = False

    name = "rouge_l_generated"
    label = "ROUGE-L"
    unit = "%"
    better = "higher"
    better_on_forget = "to the oracle"
    headline = ("forget", "retain")
    scope = "each"
    needs = frozenset({"generated"})

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the mean F-measure per row."""
        scorer = RougeScorer(["rougeL"], use_stemmer=self.use_stemmer)

        def one(row: Answered) -> float | None:
            if not any(c.isalnum() for c in row.row.answer):
                return None
            return 100.0 * scorer.score(row.row.answer, row.generated or "")["rougeL"].fmeasure

        return mean([one(r) for r in rows], "no word in the answer")
