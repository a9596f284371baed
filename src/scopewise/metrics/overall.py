"""Overall."""

from __future__ import annotations

from collections.abc import Mapping

from scopewise.metrics.base import Aggregate, ReferenceValues, Value, harmonic_mean

_PARTS = ("memorization", "privacy", "utility")


class Overall(Aggregate):
    """Harmonic mean of memorization, privacy and utility.

    Formula: harmonic mean of the three. Range 0-1, higher is better. It is 0 if one of the three is 0; the note names
    the lowest. None if one could not be computed.

    Source: arXiv:2506.12618, section 5, confirmed in locuslab/open-unlearning issue #150.
    """

    name = "overall"
    label = "Overall"
    better = "higher"
    headline = ("",)

    def combine(self, values: Mapping[str, Value], reference: ReferenceValues | None, split: str) -> Value | None:
        """Return the harmonic mean of the three."""
        found = {name: values.get(f"{name}/{split}") for name in _PARTS}
        if all(value is None for value in found.values()):
            return None
        known = {name: value.value for name, value in found.items() if value is not None and value.value is not None}
        missing = tuple(f"not measured: {name}" for name in _PARTS if name not in known)
        if missing:
            return Value(None, skipped=missing)
        lowest = min(known, key=lambda name: known[name])
        return Value(harmonic_mean(list(known.values())), note=f"lowest of the three: {lowest} {known[lowest]:.3g}")
