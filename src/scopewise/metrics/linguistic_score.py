"""Linguistic score."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from scopewise.metrics.base import Answered, RowMetric, Value, harmonic_mean


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
