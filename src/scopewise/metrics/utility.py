"""Utility."""

from __future__ import annotations

from collections.abc import Mapping

from scopewise.metrics.base import Aggregate, ReferenceValues, Value, harmonic_mean


class Utility(Aggregate):
    """Utility relative to the target: model utility and fluency of the generated forget answers.

    Formula: harmonic mean of model utility and fluency (`fluency`), each divided by the target's. Range 0-1 (slightly
    above 1 if the model is better than the target), higher is better. Without fluency the value is model utility alone,
    and the note says so.

    Source: arXiv:2506.12618, section 5; its code is lost (locuslab/open-unlearning issue #150).
    """

    name = "utility"
    label = "Utility"
    better = "higher"

    def combine(self, values: Mapping[str, Value], reference: ReferenceValues | None, split: str) -> Value | None:
        """Return the harmonic mean of the two."""
        target = reference.target if reference else {}
        useful = values.get(f"model_utility/{split}")
        if useful is None or useful.value is None:
            return None
        fluent = values.get(f"fluency/forget_{split}")
        parts, notes = [], []
        for key, value in ((f"model_utility/{split}", useful), (f"fluency/forget_{split}", fluent)):
            if value is None or value.value is None:
                notes.append("no fluency: model utility alone")
                continue
            full = target.get(key)
            parts.append(value.value / full.value if full is not None and full.value else value.value)
        if not target:
            notes.append("no target: not scaled with it")
        return Value(harmonic_mean(parts), note="; ".join(notes))
