"""Weight attribution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt
from torch import Tensor

from scopewise.localizers.base import Scopes, ScoreLocalizer
from scopewise.models.engine import Engine
from scopewise.models.matrices import matrices
from scopewise.models.parallel.fsdp import full_tensor


@dataclass(frozen=True, kw_only=True)
class WeightAttribution(ScoreLocalizer):
    """Weights whose removal would raise the forget loss, corrected for the effect of retaining (WAGLE).

        S_i = |g_f,i (θ_i - g_r,i / γ)|

    g_f and g_r are the mean gradients of the CE on the true answers of the two scopes. At the default γ the second part
    dominates: S is about |g_f g_r| / γ.

    Choose it for masks over single weights of a fully trained model. The main knob is `gamma`: large scores a weight by
    its own importance, small by its effect on retention (only |g_f g_r| counts). The authors keep .4 to .95 of all
    weights: `threshold: fraction` and `unit: weight`.

    Source: Jia et al., arXiv:2410.17509. Reference code: OPTML-Group/WAGLE 31275e8 `src/unlearn/generate_mask.py`
    (`snip_advanced`).

    Deviations: float32 and means (there sums over the rows). Linear layers only (there also embeddings, norms and
    lm_head), so the same share is fewer parameters. Every retain row once (there one is drawn for each forget row).

    Attributes:
        gamma: γ. Default: the code's 1e-6, which is for gradients summed over 400 rows with the loss divided by 4
            accumulation steps: 1e-6 · 4 / 400.
    """

    gamma: Annotated[float, Gt(0)] = 1e-8

    name: ClassVar[str] = "weight_attribution"

    def scores(self, engine: Engine, scopes: Scopes) -> Mapping[str, Tensor]:
        """Return S of each weight."""
        unlearn = engine.mean_gradients(scopes.forget, "forget")
        keep = engine.mean_gradients(scopes.retain, "retain")
        return {
            name: (unlearn[name] * (full_tensor(parameter.detach()).float() - keep[name] / self.gamma)).abs()
            for name, parameter in matrices(engine.model).items()
        }
