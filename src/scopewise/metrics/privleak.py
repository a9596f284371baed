"""Privacy leakage."""

from __future__ import annotations

from collections.abc import Mapping

from scopewise.metrics.base import Aggregate, Reference, Value, against_reference


class Privleak(Aggregate):
    """How far membership inference is from what it is on a model that never saw the forget rows.

    Formula: 100 · ((1 - AUC) - (1 - AUC_ref)) / (1 - AUC_ref), AUC that of `mia_min_k`, AUC_ref that of the
    reference. Range: 0 is wanted: -100 where membership is as obvious as can be, positive where the forget rows look
    *less* familiar than to a model that never saw them. Without a reference AUC_ref is .5, and the note says so: a
    perfect model then shows what the two sets differ by, not 0.

    Source: MUSE, Shi et al., arXiv:2407.06460; locuslab/open-unlearning d3d7cf9 `privleak` (equal).
    """

    name = "privleak"
    higher_is_better = None

    def combine(self, values: Mapping[str, Value], reference: Reference | None, split: str) -> Value | None:
        """Return the leakage in percent."""
        return against_reference(
            f"mia_min_k/{split}", values, reference, lambda a, r: 100.0 * (r - a) / (1 - r + 1e-10)
        )
