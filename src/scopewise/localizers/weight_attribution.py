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
    """Weights whose removal would raise the forget loss, corrected for what retaining would do about it (WAGLE).

        S_i = |g_f,i (θ_i - g_r,i / γ)|

    g_f and g_r are the mean gradients of the CE on the true answers of the two scopes. At the default γ the second part
    rules: about |g_f g_r|.

    Choose it for masks over single weights of a fully trained model; `gamma` trades the weight's own importance (large)
    against what it does to retention (small: |g_f g_r| alone counts). The authors keep .4 to .95 of all weights:
    `threshold: fraction` and `unit: weight`.

    Source: Jia et al., arXiv:2410.17509. Reference code: OPTML-Group/WAGLE 31275e8 `src/unlearn/generate_mask.py`
    (`snip_advanced`).

    Deviations: float32 and means (there sums over the rows); linear layers alone (there embeddings, norms and head
    too), so that a share of the parameters is of fewer; every retain row once (there one is drawn for each forget row).

    Attributes:
        gamma: γ. Default: the code's 1e-6, which is of gradients summed over 400 rows with the loss divided by 4
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
