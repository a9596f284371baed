"""Quality of the generated texts as language: fluency, richness, repetition, degeneration."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Annotated

from annotated_types import Ge, Interval

from scopewise.metrics.base import Answered, RowMetric, Value, harmonic_mean, mean


class Fluency(RowMetric):
    """Probability that the generated text is language and not gibberish, by a classifier.

    Formula: mean over rows of P(clean | text), where `clean` is the first class of `evaluate.fluency_model`. Range 0-1,
    higher is better: prose scores about 1, gibberish about 0. None without a classifier; `degeneration` and
    `repetition` need none.

    Source: arXiv:2506.12618; locuslab/open-unlearning d3d7cf9 `classifier_prob`, which uses
    madhurjindal/autonlp-Gibberish-Detector-492513457.
    """

    name = "fluency"
    label = "Fluency"
    better = "higher"
    scope = "each"
    needs = frozenset({"generated", "fluency_model"})
    missing = "no evaluate.fluency_model"

    def score(self, row: Answered) -> float | None:
        """Return the probability."""
        return row.fluency


class LinguisticScore(RowMetric):
    """Quality of the generated language: how likely a language model finds it, and how rich its vocabulary is.

    Formula: harmonic mean of 1/(1 + PPL), 1/(1 + BI) and HS/(1 + HS). PPL is the perplexity of the text under
    `evaluate.language_model`, given the question. BI = N^(V^-0.165) (Brunet) and HS = 100 ln N / (1 - V1/V + 0.1)
    (Honoré), for N words, of which V are different and V1 occur once. Each is first averaged over rows. Range 0-1,
    higher is better: published values are 0.1 to 0.2 for good models and 0.03 for broken ones. Without a language model
    PPL is left out, and the note says so. Empty texts have BI 1000 and HS 0.

    Source: Xu et al., arXiv:2502.11190; the 0.1 and the averages over rows are from zjunlp/unlearn 0800fd2. Deviation:
    words are runs of letters and digits, or other single characters (there NLTK's tokens).
    """

    name = "linguistic_score"
    label = "Linguistic score"
    better = "higher"
    scope = "each"
    needs = frozenset({"generated", "language_model"})

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the score of all texts together (not a mean over rows)."""
        if not rows:
            return Value(None, skipped=("no rows",))
        brunet, honore = zip(*(_richness(row.generated or "") for row in rows), strict=True)
        parts = [1 / (1 + fmean(brunet)), fmean(honore) / (1 + fmean(honore))]
        nll = [row.generated_nll for row in rows if row.generated_nll is not None]
        if nll:
            parts.append(1 / (1 + fmean(math.exp(min(x, 700)) for x in nll)))
        return Value(harmonic_mean(parts), note="" if nll else "no evaluate.language_model: without perplexity")


def _richness(text: str) -> tuple[float, float]:
    """Return Brunet's and Honoré's statistic of a text."""
    words = re.findall(r"\w+|[^\w\s]", text.lower())
    if not words:
        return 1000.0, 0.0
    counts = Counter(words)
    once = sum(count == 1 for count in counts.values())
    brunet = len(words) ** (len(counts) ** -0.165)
    honore = 0.0 if len(words) <= 1 else 100 * math.log(len(words)) / (1 - once / len(counts) + 0.1)
    return brunet, min(honore, 1e6)


@dataclass(frozen=True, kw_only=True)
class Repetition(RowMetric):
    """Share of word n-grams in the generated text that repeat an earlier one.

    Formula: mean over rows of 1 - (distinct n-grams) / (n-grams), n-grams of `words` words of the generated text. Range
    0-1, lower is better: normal prose is near 0, a text that repeats one word is near 1. Texts of fewer words are
    skipped (`degeneration` counts the empty ones).

    Source: rep-n of Welleck et al., arXiv:1908.04319, with n = 3 over words.

    Attributes:
        words: Length of the word n-grams. Default: ours.
    """

    words: Annotated[int, Ge(1)] = 3

    name = "repetition"
    label = "Repetition"
    better = "lower"
    scope = "each"
    needs = frozenset({"generated"})

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the mean share of repeated n-grams."""
        return mean([_repeated(row.generated or "", self.words) for row in rows], f"fewer than {self.words} words")


@dataclass(frozen=True, kw_only=True)
class Degeneration(RowMetric):
    """Share of generated texts that are broken: empty, repetitive, or without words.

    Formula: mean over rows of [no letter or digit, or more than `repeated_fraction` of the word n-grams repeat an
    earlier one, or less than `legible_fraction` of the characters are letters, digits or spaces]. Range 0-1, lower is
    better on every scope: a forgotten answer may be wrong, but need not be broken. No row is skipped.

    Source: ours; arXiv:2502.11190 measures the same failure as linguistic score.

    Attributes:
        words: Length of the word n-grams. Default: ours.
        repeated_fraction: Share (0-1) of n-grams that repeat an earlier one, above which a text is a loop. Default: ours.
        legible_fraction: Share (0-1) of letters, digits and spaces, below which a text has no words. Default: ours.
    """

    words: Annotated[int, Ge(1)] = 3
    repeated_fraction: Annotated[float, Interval(ge=0, le=1)] = 0.5
    legible_fraction: Annotated[float, Interval(ge=0, le=1)] = 0.5

    name = "degeneration"
    label = "Degeneration"
    better = "lower"
    scope = "each"
    needs = frozenset({"generated"})

    def score(self, row: Answered) -> float:
        """Return 1 for a broken text, else 0."""
        text = row.generated or ""
        legible = sum(c.isalnum() or c.isspace() for c in text) >= self.legible_fraction * len(text)
        loops = (_repeated(text, self.words) or 0.0) > self.repeated_fraction
        return float(not any(c.isalnum() for c in text) or loops or not legible)


def _repeated(text: str, words: int) -> float | None:
    """Return the share of a text's runs of `words` words that repeat an earlier one; None if it is too short."""
    split = text.lower().split()
    grams = list(zip(*(split[i:] for i in range(words)), strict=False))
    return 1 - len(set(grams)) / len(grams) if grams else None
