"""Ratio of diagonal Fisher information."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from scopewise.localizers.base import Scopes, ScoreLocalizer
from scopewise.models.engine import Engine


@dataclass(frozen=True, kw_only=True)
class FisherRatio(ScoreLocalizer):
    """Weights that matter more to the forget scope than to the retain scope, by squared gradients.

        S_i = F_f,i / (F_r,i + ε),   F_i the mean over rows of (∂ CE of the true answer / ∂θ_i)²

    ε is a thousandth of the mean F_r.

    Choose it to find weights that the retain scope hardly uses; a small `fraction` takes those with the highest ratio.

    Source: the selection of Foster et al., arXiv:2308.07707 (F_forget > α F_all, α = 10), and on language models Cha et
    al., arXiv:2408.06621 (F_f / (F_r + 1e-5)). Reference code: if-loops/selective-synaptic-dampening cdfdc0e
    `src/ssd.py`, csm9493/efficient-llm-unlearning 272484a `measure_importance.py`.

    Deviations: squares of each *row's* gradient (there of each batch's, which depends on the batch size); relative ε,
    since 1e-5 is far above the F of a trained model.
    """

    name: ClassVar[str] = "fisher_ratio"

    def scores(self, engine: Engine, scopes: Scopes) -> Mapping[str, Tensor]:
        """Return the ratio of each weight."""
        unlearn = engine.mean_squared_gradients(scopes.forget, "forget")
        keep = engine.mean_squared_gradients(scopes.retain, "retain")
        weights = sum(value.numel() for value in keep.values())
        floor = 1e-3 * sum(float(value.sum()) for value in keep.values()) / weights
        return {name: unlearn[name] / (keep[name] + max(floor, 1e-30)) for name in unlearn}
