"""Shrink and perturb before the first step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Interval
from peft import PeftModel
from torch import Tensor, nn

from scopewise.errors import ConfigError
from scopewise.methods.base import seeded
from scopewise.methods.wrappers.base import Wrapper


@dataclass(frozen=True, kw_only=True)
class Noise(Wrapper):
    """Add noise to the weights before the first step; the reference is the model without noise.

        θ ← (1 - alpha) θ + alpha · beta · ξ,   ξ Xavier-uniform for matrices, 0 for vectors

    Choose it with the retain term `kl`, which restores the retain answers from the reference; `undo` also distils the
    forget answers of a suppressed model. Its main knob, `alpha`, moves the weights from the model (0) to random ones (1):
    higher resists relearning better, but the damage takes longer to repair. `beta: 0` only shrinks the weights.

    Source: Lee et al., arXiv:2506.06278 (UNDO), after shrink and perturb (Ash & Adams, arXiv:1910.08475). Reference code:
    AddieFoote/distillation-robustify-unlearning edbf111 `do_corruption`.

    Deviations: each matrix draws its own ξ (in the code too, from one seed for all). With `where: region` only the
    parameters that are trained get noise.

    Attributes:
        alpha: Share (0-1) of the noise; the weights are multiplied by 1 - alpha. Default: the code's example.
        beta: Factor of the noise. Default: the code.
        where: `all` parameters, or only those of the `region`. Default: the paper.
    """

    alpha: Annotated[float, Interval(ge=0, le=1)] = 0.3
    beta: Annotated[float, Interval(ge=0, le=1)] = 0.1
    where: Literal["all", "region"] = "all"

    name: ClassVar[str] = "noise"

    def check_model(self, model: nn.Module) -> None:
        """Raise ConfigError for an adapter: to shrink it leads back to the model under it."""
        if isinstance(model, PeftModel):
            raise ConfigError(
                "unlearn.wrapper_args.noise: on an adapter, which shrinks towards the model under it, where nothing is "
                "forgotten; set unlearn.parameters=all, which merges the adapter first"
            )

    def begin(self, parameters: Mapping[str, nn.Parameter], region: Mapping[str, Tensor], seed: int) -> None:
        """Damage the weights in place, the same on every device."""
        generator = seeded(seed)
        with torch.no_grad():
            for name, parameter in parameters.items():
                noise = torch.zeros(parameter.shape)
                if parameter.dim() > 1:
                    torch.nn.init.xavier_uniform_(noise, generator=generator)
                damaged = (1 - self.alpha) * parameter + self.alpha * self.beta * noise.to(parameter)
                if self.where == "all":
                    parameter.copy_(damaged)
                elif name in region:
                    parameter.copy_(torch.where(region[name].bool(), damaged, parameter))
