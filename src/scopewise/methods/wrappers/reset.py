"""Move the weights back towards the base model before the first step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Interval
from peft import PeftModel
from torch import nn

from scopewise.errors import ConfigError
from scopewise.methods.wrappers.base import Beginning, Wrapper


@dataclass(frozen=True, kw_only=True)
class Reset(Wrapper):
    """Undo a share of the fine-tuning before the first step; the reference is the model before that.

        θ ← θ + alpha (θ_base - θ),   for the parameters in the region

    What fine-tuning has written is removed rather than hidden, so relearning is slow; the steps then restore what the
    retain rows ask for. `alpha: 1` starts from the base, as retraining does.

    Choose it if forgetting must survive fine-tuning and the retain rows cover what the model has to keep: facts that no row
    asks for are reset too. Combine it with the retain term `kl` and with self-questions (`unlearn.expand`). Its main knob,
    `alpha`, exchanges retention (0) for resistance (1).

    In a run, the base is `model.path`; in Python, give `base_model`. The base of a LoRA adapter is the same adapter with
    B = 0, so none is loaded.

    Source: ours, after shrink and perturb (Ash & Adams, arXiv:1910.08475), UNDO's damage (Lee et al., arXiv:2506.06278) and
    the scaling of task vectors (Ilharco et al., arXiv:2212.04089).

    Deviations: UNDO shrinks towards zero, which also shrinks the weights of norms and the pre-trained knowledge.

    Attributes:
        alpha: Share (0-1) of the fine-tuning to undo. Default: ours.
    """

    alpha: Annotated[float, Interval(ge=0, le=1)] = 0.5

    name: ClassVar[str] = "reset"
    needs_base: ClassVar[bool] = True

    def check_model(self, model: nn.Module) -> None:
        """Raise ConfigError for an adapter other than LoRA: only there is the base known without loading it."""
        if isinstance(model, PeftModel) and not all(
            "lora_" in n for n, p in model.named_parameters() if p.requires_grad
        ):
            raise ConfigError(
                "unlearn.wrapper_args.reset: on an adapter that does not consist of LoRA's A and B alone; set "
                "unlearn.parameters=all, which merges the adapter first"
            )

    def begin(self, start: Beginning) -> None:
        """Move the parameters of the region."""
        base = start.base()
        with torch.no_grad():
            for name, mask in start.region.items():
                parameter = start.parameters[name]
                step = self.alpha * (base[name].to(parameter) - parameter)
                parameter.add_(torch.where(mask.bool(), step, torch.zeros_like(step)))
