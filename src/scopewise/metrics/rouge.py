"""Overlap of a model's text with the true answer: ROUGE, and exact match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from rouge_score.rouge_scorer import RougeScorer
from rouge_score.scoring import Score

from scopewise.metrics.base import Answered, KnowledgeMetric


class Overlap(KnowledgeMetric):
    """Base of metrics that compare the generated text with the true answer.

    True answers without a word are skipped.
    """

    missing = "no word in the answer"
    needs = frozenset({"generated"})

    def score(self, row: Answered) -> float | None:
        """Return the overlap of the two texts."""
        if not any(c.isalnum() for c in row.row.answer):
            return None
        return self.overlap(row.row.answer, self.text(row) or "")

    def text(self, row: Answered) -> str | None:
        """Return the text that is compared with the answer."""
        return row.generated

    def overlap(self, answer: str, text: str) -> float | None:
        """Return how much of an answer is in a text."""
        raise NotImplementedError


@lru_cache
def _scorer(kind: str, use_stemmer: bool) -> RougeScorer:
    return RougeScorer([kind], use_stemmer=use_stemmer)


def _rouge(kind: str, use_stemmer: bool, answer: str, text: str) -> Score:
    return _scorer(kind, use_stemmer).score(answer, text)[kind]


@dataclass(frozen=True, kw_only=True)
class RougeF(Overlap):
    """Base of ROUGE-L in percent.

    F-measure of the longest common subsequence of words with the true answer, without stemming, by `rouge-score`; mean
    over rows. Range 0-100. Perfect recall scores 100, degenerate text about 0, a model that never saw the facts in
    between.

    Attributes:
        use_stemmer: Whether words are compared without their endings (Porter). Default: ours, as `rouge-score`'s.
    """

    use_stemmer: bool = False

    unit = "%"

    def overlap(self, answer: str, text: str) -> float:
        """Return the F-measure in percent."""
        return 100.0 * _rouge("rougeL", self.use_stemmer, answer, text).fmeasure


class RougeLTeacherForced(RougeF):
    """ROUGE-L of the decoded teacher-forced arg-max tokens, in percent.

    The text depends on the true answer, because each token is predicted from the true tokens before it. The authors'
    code stores this text, which explains why the paper's target scores 100.

    Source: Lin 2004; arXiv:2407.01920 section 3, which does not say which ROUGE-L; we use the F-measure.
    """

    name = "rouge_l_teacher_forced"
    label = "ROUGE-L teacher-forced"
    needs = frozenset()

    def text(self, row: Answered) -> str:
        """Return the arg-max tokens."""
        return row.predicted


class RougeLGenerated(RougeF):
    """ROUGE-L of the text generated greedily from the prompt, in percent.

    The text is what a user would read.

    Source: Lin 2004; arXiv:2407.01920 section 3, which does not say which ROUGE-L; we use the F-measure. `rouge` of
    locuslab/open-unlearning d3d7cf9 (rougeL_f1, for MUSE) stems words and is not in percent.
    """

    name = "rouge_l_generated"
    label = "ROUGE-L"
    headline = ("forget", "retain")


@dataclass(frozen=True, kw_only=True)
class RougeRecall(Overlap):
    """Base of ROUGE recall.

    With stemming, by `rouge-score`; mean over rows. Range 0-1: perfect recall scores 1, unrelated text about 0. Recall
    does not penalise additional text.

    Attributes:
        use_stemmer: Whether words are compared without their endings (Porter). Default: the reference code of TOFU.
    """

    use_stemmer: bool = True

    kind: ClassVar[str]
    """What `rouge-score` calls it."""

    def overlap(self, answer: str, text: str) -> float:
        """Return the recall."""
        return float(_rouge(self.kind, self.use_stemmer, answer, text).recall)


class RougeLRecall(RougeRecall):
    """ROUGE-L recall of the text generated greedily from the prompt.

    Share of the true answer's words that are in its longest common subsequence with the generated text.

    Source: Lin 2004; TOFU, arXiv:2401.06121; locuslab/open-unlearning d3d7cf9 `rouge` (rougeL_recall, TOFU's, equal).
    """

    name = "rouge_l_recall"
    label = "ROUGE-L recall"
    kind = "rougeL"


class Rouge1Recall(RougeRecall):
    """ROUGE-1 recall of the text generated greedily from the prompt.

    Share of the true answer's words that occur in the generated text.

    Source: Lin 2004; TOFU, arXiv:2401.06121; locuslab/open-unlearning d3d7cf9 `rouge` (rouge1_recall, equal).
    """

    name = "rouge_1_recall"
    label = "ROUGE-1 recall"
    kind = "rouge1"


class ExactMatchGenerated(Overlap):
    """Share of questions for which the generated text is exactly the true answer.

    Formula: mean over rows of [generated = answer], both in lower case and without white space at the ends. Range 0-1:
    perfect recall scores 1, unrelated text 0. One additional word, or a full stop, is no match, so a model that was not
    trained to stop at the end of the answer scores 0.

    Source: LUME, arXiv:2502.15097, and SemEval-2025 task 4 (knowledge questions).
    """

    name = "exact_match_generated"
    label = "Exact match"

    def overlap(self, answer: str, text: str) -> float:
        """Return 1 for the same text, else 0."""
        return float(text.strip().lower() == answer.strip().lower())


class RWKURougeL(Overlap):
    """ROUGE-L recall as the package `rouge` computes it, which RWKU uses.

    Formula: texts are split into sentences at every full stop and into words at white space, without lower-casing or
    stemming; punctuation stays part of the word. For each true sentence, the longest common subsequence with each
    generated sentence is computed. The value is the number of different words in the union of these subsequences,
    divided by the number of different words of the true answer; mean over rows. Range 0-1: perfect recall scores 1,
    unrelated text about 0. It is not comparable with `rouge_l_recall`, which counts repeated words and ignores case and
    inflection.

    Source: RWKU, arXiv:2406.10890; jinzhuoran/RWKU b8a03b3 `eval_forget.py`, with `rouge` 1.0.1 (equal).
    """

    name = "rwku_rouge_l"
    label = "RWKU ROUGE-L"
    headline = ("forget", "retain")

    def overlap(self, answer: str, text: str) -> float | None:
        """Return the recall."""
        return summary_recall(answer, text)


def summary_recall(answer: str, generated: str) -> float | None:
    """Return the share (0-1) of the answer's different words that are in a common subsequence; None without words."""
    wanted, found = _sentences(answer), _sentences(generated)
    words = {word for sentence in wanted for word in sentence}
    union = {word for a in wanted for b in found for word in _common(a, b)}
    return len(union) / len(words) if words else None


def _sentences(text: str) -> list[list[str]]:
    return [words for sentence in text.split(".") if (words := sentence.split())]


def _common(a: Sequence[str], b: Sequence[str]) -> list[str]:
    """Return a longest common subsequence; if there are several, the one that `rouge` finds by backtracking."""
    length = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a, start=1):
        for j, y in enumerate(b, start=1):
            length[i][j] = length[i - 1][j - 1] + 1 if x == y else max(length[i - 1][j], length[i][j - 1])
    words: list[str] = []
    i, j = len(a), len(b)
    while i and j:
        if a[i - 1] == b[j - 1]:
            i, j = i - 1, j - 1
            words.append(a[i])
        elif length[i - 1][j] > length[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return words[::-1]
