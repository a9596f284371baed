"""Model utility."""

from __future__ import annotations

from collections.abc import Mapping

from scopewise.metrics.base import Aggregate, ReferenceValues, Value, harmonic_mean

_SCOPES = ("retain", "real_authors", "world_facts")
_MEASURES = {
    "retain": ("probability", "rouge_l_recall", "truth_ratio_retain"),
    "real_authors": ("probability_normalised", "rouge_l_recall", "truth_ratio_retain"),
    "world_facts": ("probability_normalised", "rouge_l_recall", "truth_ratio_retain"),
}


class ModelUtility(Aggregate):
    """TOFU's model utility: the harmonic mean of nine metrics of what the model should still know.

    Formula: harmonic mean of probability, ROUGE-L recall and truth ratio (`truth_ratio_retain`) on the retain rows, the
    real authors and the world facts; on the latter two the probability is `probability_normalised`. Range 0-1, higher
    is better. It is 0 if one of the nine is 0; the note names the lowest. None if one of them was not measured.

    Source: TOFU, arXiv:2401.06121; locuslab/open-unlearning d3d7cf9 `hm_aggregate` (equal).
    """

    name = "model_utility"
    label = "Model utility"
    better = "higher"
    headline = ("",)

    def combine(self, values: Mapping[str, Value], reference: ReferenceValues | None, split: str) -> Value | None:
        """Return the harmonic mean of the nine."""
        keys = [f"{metric}/{scope}_{split}" for scope in _SCOPES for metric in _MEASURES[scope]]
        if not any(values.get(key) for key in keys[3:]):
            return None
        missing = [key for key in keys if key not in values or values[key].value is None]
        if missing:
            return Value(None, (), tuple(f"not measured: {key}" for key in missing))
        found = {key: value for key in keys if (value := values[key].value) is not None}
        lowest = min(found, key=lambda key: found[key])
        return Value(harmonic_mean(list(found.values())), note=f"lowest of the nine: {lowest} {found[lowest]:.3g}")
