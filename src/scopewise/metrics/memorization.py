"""Memorization."""

from __future__ import annotations

from collections.abc import Mapping

from scopewise.metrics.base import Aggregate, ReferenceValues, Value, harmonic_mean

_PARTS = ("extraction_strength", "exact_memorization", "probability_paraphrase", "truth_ratio")


class Memorization(Aggregate):
    """How little of what the target knew about the forget scope is left: the harmonic mean of four metrics.

    Formula: harmonic mean of 1 - m/m_full over extraction strength, exact memorization, probability of the paraphrase
    and truth ratio of the forget rows, where m_full is the target's value. Range 0-1, higher is better. The target
    scores 0; the oracle's value is what can be reached without any knowledge. Each of the four terms is clipped to 0-1.
    Without the target's values m_full is 1, and the note says so.

    Source: arXiv:2506.12618, section 5. Its code is lost (locuslab/open-unlearning issues #143, #150). The paper says
    that all metrics are scaled with the target's; we read this as m/m_full, which fits its Table 3.
    """

    name = "memorization"
    label = "Memorization"
    better = "higher"

    def combine(self, values: Mapping[str, Value], reference: ReferenceValues | None, split: str) -> Value | None:
        """Return the harmonic mean of the four."""
        target = reference.target if reference else {}
        parts = []
        for name in _PARTS:
            key = f"{name}/forget_{split}"
            own = values.get(key)
            if own is None or own.value is None:
                return None
            full = target.get(key)
            scale = full.value if full is not None and full.value else 1.0
            parts.append(min(1.0, max(0.0, 1 - own.value / scale)))
        return Value(harmonic_mean(parts), note="" if target else "no target: the parts are not scaled with it")
