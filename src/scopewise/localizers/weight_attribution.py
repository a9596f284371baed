"""Weight attribution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from scopewise.data.prompt import Encoded
from scopewise.localizers.base import ScoreLocalizer
from scopewise.models.gradients import mean_gradients
from scopewise.models.matrices import matrices
from scopewise.models.sharded import whole


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

    Settings:
        gamma: γ. Default: the code's 1e-6, which is of gradients summed over 400 rows with the loss divided by 4
            accumulation steps: 1e-6 · 4 / 400.
        max_tokens: Padded tokens per batch; changes no number but by rounding. Default: ours.
    """

    name = "weight_attribution"

    def scores(
        self, model: nn.Module, forget: Sequence[Encoded], retain: Sequence[Encoded], seed: int
    ) -> Mapping[str, Tensor]:
        """Return S of each weight."""
        unlearn = mean_gradients(model, forget, self.settings.max_tokens, "forget")
        keep = mean_gradients(model, retain, self.settings.max_tokens, "retain")
        return {
            name: (unlearn[name] * (whole(parameter.detach()).float() - keep[name] / self.settings.gamma)).abs()
            for name, parameter in matrices(model).items()
        }
