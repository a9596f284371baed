"""Fluency."""

from __future__ import annotations

from collections.abc import Sequence

from scopewise.metrics.base import Answered, RowMetric, Value, mean


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

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the mean probability."""
        return mean([row.fluency for row in rows], "no evaluate.fluency_model")
