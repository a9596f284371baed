"""Privacy leakage."""

from __future__ import annotations

from collections.abc import Mapping

from scopewise.metrics.base import Aggregate, ReferenceValues, Value, against_reference


class Privleak(Aggregate):
    """How much membership inference differs from a model that never saw the forget rows, in percent.

    Formula: 100 · ((1 - AUC) - (1 - AUC_ref)) / (1 - AUC_ref), where AUC is `mia_min_k` of the model and AUC_ref that
    of the reference. The goal is 0. It is -100 if members are perfectly separated, and positive if the forget rows look
    *less* familiar than to a model that never saw them. Without a reference AUC_ref is 0.5, and the note says so; even
    a perfectly unlearned model is then not at 0 if forget and holdout rows differ.

    Source: MUSE, Shi et al., arXiv:2407.06460; locuslab/open-unlearning d3d7cf9 `privleak` (equal).
    """

    name = "privleak"
    label = "PrivLeak"
    unit = "%"
    better = "to the oracle"
    headline = ("",)

    def combine(self, values: Mapping[str, Value], reference: ReferenceValues | None, split: str) -> Value | None:
        """Return the leakage in percent."""
        return against_reference(
            f"mia_min_k/{split}", values, reference, lambda a, r: 100.0 * (r - a) / (1 - r + 1e-10)
        )
