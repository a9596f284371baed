"""Weight attribution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from scopewise.data.prompt import Encoded
from scopewise.localizers.base import ScoreLocalizer
from scopewise.models.gradients import matrices, mean_gradients


class WeightAttribution(ScoreLocalizer):
    """Weights whose removal would raise the forget loss, corrected for what retaining would do about it (WAGLE).

    Formula: S_i = |g_f,i (θ_i - g_r,i / γ)|, g_f and g_r the mean gradients of the CE on the true answers of the two scopes.

    Source: Jia et al., arXiv:2410.17509. Reference code: OPTML-Group/WAGLE 31275e8 `src/unlearn/generate_mask.py`
    (`snip_advanced`), which sums gradients over the rows: its γ = 1e-6 is γ = 1e-6 · 4 / 400 = 1e-8 of mean gradients
    (400 rows, loss divided by 4 accumulation steps), the default. At that γ the second part rules: about |g_f g_r|.
    Deviations: float32 and means; linear layers alone (there embeddings, norms and head too), so that a share of the
    parameters is of fewer; every retain row once (there one is drawn for each forget row). The code keeps .4 to .95 of all
    weights: `localize.threshold=fraction`, `unit=weight`.
    """

    name = "weight_attribution"

    def scores(
        self, model: nn.Module, forget: Sequence[Encoded], retain: Sequence[Encoded], seed: int
    ) -> Mapping[str, Tensor]:
        """Return S of each weight."""
        unlearn = mean_gradients(model, forget, self.settings.max_tokens, "forget")
        keep = mean_gradients(model, retain, self.settings.max_tokens, "retain")
        return {
            name: (unlearn[name] * (parameter.detach().float() - keep[name] / self.settings.gamma)).abs()
            for name, parameter in matrices(model).items()
        }
