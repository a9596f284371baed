"""Noise on the weights: before a method, or after it with distillation (UNDO)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Gt, Interval
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn

from scopewise.errors import ConfigError
from scopewise.methods.base import Answers, LossInput, Method, seeded
from scopewise.methods.wrappers.base import Beginning, Phase, Wrapper
from scopewise.ops import Reduction, token_kl


@dataclass(frozen=True, kw_only=True)
class Damaging(Wrapper):
    """Base of wrappers that damage the weights with noise.

    Attributes:
        alpha: Share (0-1) of the noise; the weights are multiplied by 1 - alpha. Default: the code's example.
        beta: Factor of the noise. Default: the code.
        where: `all` parameters, or only those of the `region`. Default: the paper.
    """

    alpha: Annotated[float, Interval(ge=0, le=1)] = 0.3
    beta: Annotated[float, Interval(ge=0, le=1)] = 0.1
    where: Literal["all", "region"] = "all"

    def check_model(self, model: nn.Module) -> None:
        """Raise ConfigError for an adapter: to shrink it leads back to the model under it."""
        if isinstance(model, PeftModel):
            raise ConfigError(
                "unlearn.wrapper_args.noise: on an adapter, which shrinks towards the model under it, where nothing is "
                "forgotten; set unlearn.parameters=all, which merges the adapter first"
            )


@dataclass(frozen=True, kw_only=True)
class Noise(Damaging):
    """Add noise to the weights before the first step; the reference is the model without noise.

        θ ← (1 - alpha) θ + alpha · beta · ξ,   ξ Xavier-uniform for matrices, 0 for vectors

    Choose it with the retain term `kl`, which restores the retain answers from the reference; `undo` also distils the
    forget answers of a suppressed model. Its main knob, `alpha`, moves the weights from the model (0) to random ones (1):
    higher resists relearning better, but the damage takes longer to repair. `beta: 0` only shrinks the weights.

    Source: Lee et al., arXiv:2506.06278 (UNDO), after shrink and perturb (Ash & Adams, arXiv:1910.08475). Reference code:
    AddieFoote/distillation-robustify-unlearning edbf111 `do_corruption`.

    Deviations: each matrix draws its own ξ (in the code too, from one seed for all). With `where: region` only the
    parameters that are trained get noise.
    """

    name: ClassVar[str] = "noise"

    def begin(self, start: Beginning) -> None:
        """Damage the weights in place, the same on every device."""
        generator = seeded(start.seed)
        with torch.no_grad():
            for name, parameter in start.parameters.items():
                noise = torch.zeros(parameter.shape)
                if parameter.dim() > 1:
                    torch.nn.init.xavier_uniform_(noise, generator=generator)
                damaged = (1 - self.alpha) * parameter + self.alpha * self.beta * noise.to(parameter)
                if self.where == "all":
                    parameter.copy_(damaged)
                elif name in start.region:
                    parameter.copy_(torch.where(start.region[name].bool(), damaged, parameter))


@dataclass(frozen=True, kw_only=True)
class Distil(Method):
    """Distil the reference model: L = KL(P_ref ‖ P), mean over tokens, of forget and of retain answers.

    Without the noise it starts at its minimum, so it is not in the table of methods.
    """

    retain: str = "kl"

    reduction: ClassVar[Reduction] = Reduction.TOKEN_MEAN
    needs: ClassVar[frozenset[LossInput]] = frozenset({"logits", "reference_logits"})

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return each answer's mean KL from the model before, in nats."""
        assert answers.reference_logits is not None
        return answers.mean(token_kl(answers.reference_logits, answers.logits))


@dataclass(frozen=True, kw_only=True)
class UNDO(Damaging):
    """Unlearn by any method, add noise to the weights, and distil the unlearned model into the noisy one.

        1. the training of the method, as without the wrapper       2. θ ← (1 - alpha) θ + alpha · beta · ξ  (`noise`)
        3. L = KL(suppressed ‖ model), mean over the tokens of forget and of retain answers, with its own learning rate

    Choose it if forgetting must survive fine-tuning and you have much data to distil on: the model has to learn again, from
    that data, all that it should still know. The authors use `max_ent+undo`. Its main knob, `alpha`, moves the start of the
    distillation from the suppressed model (0) to random weights (1).

    Source: Lee et al., arXiv:2506.06278. Reference code: AddieFoote/distillation-robustify-unlearning edbf111
    `partial_distill_langarith.py`.

    Deviations: answers only (the code: every token of its texts; a row without a question is such a text). A fixed number
    of epochs (the authors stop at 95 % of the suppressed model's score on retain text). The deviation of `noise`.

    Attributes:
        alpha: Default: the code's example.
        beta: Default: the code.
        where: Default: the paper.
        learning_rate: Learning rate of the distillation. Default: the authors' small language model.
        num_train_epochs: Epochs of the distillation, over the forget rows. Default: ours.
        retain_weight: Factor of the KL on retain answers. Default: ours.
    """

    learning_rate: Annotated[float, Gt(0)] = 9e-4
    num_train_epochs: Annotated[float, Gt(0)] = 10.0
    retain_weight: Annotated[float, Gt(0)] = 1.0

    name: ClassVar[str] = "undo"

    @property
    def then(self) -> Phase:
        """Return the distillation of the damaged model."""
        noise = Noise(alpha=self.alpha, beta=self.beta, where=self.where)
        arguments = {"learning_rate": self.learning_rate, "num_train_epochs": self.num_train_epochs, "max_steps": -1}
        return Phase(Distil(retain_weight=self.retain_weight), (noise,), arguments)
