"""Privacy."""

from __future__ import annotations

from collections.abc import Mapping

from scopewise.metrics.base import Aggregate, ReferenceValues, Value, harmonic_mean

_ATTACKS = ("mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus")


class Privacy(Aggregate):
    """How close four membership inference attacks are to their result on a model that never saw the forget rows.

    Formula: harmonic mean over loss, zlib, min-k and min-k++ of s = min(a/r, (1-a)/(1-r)), where a is the model's AUC
    and r the reference's. Range 0-1, higher is better: 1 if all four equal the reference's, lower in either direction.
    None without a reference.

    Source: arXiv:2506.12618, section 5, which does not define s (locuslab/open-unlearning issue #172). This two-sided
    form is our reading, the only simple one that fits its Table 3; UDS (fc31639) has s = clip(1 - |a-r|/r).
    """

    name = "privacy"
    label = "Privacy"
    better = "higher"

    def combine(self, values: Mapping[str, Value], reference: ReferenceValues | None, split: str) -> Value | None:
        """Return the harmonic mean of the four."""
        own = [values.get(f"{name}/{split}") for name in _ATTACKS]
        if any(value is None or value.value is None for value in own):
            return None
        other = [reference.values.get(f"{name}/{split}") if reference else None for name in _ATTACKS]
        if any(value is None or value.value is None for value in other):
            return Value(None, skipped=("no reference: closeness to a model that never saw the forget rows",))
        pairs = [(a.value, r.value) for a, r in zip(own, other, strict=True)]  # type: ignore[union-attr]
        return Value(harmonic_mean([_closeness(a, r) for a, r in pairs]))  # type: ignore[arg-type]


def _closeness(auc: float, reference: float) -> float:
    low = auc / reference if reference > 0 else 1.0
    high = (1 - auc) / (1 - reference) if reference < 1 else 1.0
    return min(low, high)
