"""UNDO: noise and distillation after any method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Gt, Interval
from jaxtyping import Float
from torch import Tensor, nn

from scopewise.methods.base import Answers, LossInput, Method
from scopewise.methods.wrappers.base import Phase, Wrapper
from scopewise.methods.wrappers.noise import Noise
from scopewise.ops import Reduction, token_kl


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
class UNDO(Wrapper):
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
        alpha: Share (0-1) of the noise; the weights are multiplied by 1 - alpha. Default: the code's example.
        beta: Factor of the noise. Default: the code.
        where: `all` parameters, or only those of the `region`. Default: the paper.
        learning_rate: Learning rate of the distillation. Default: the authors' small language model.
        num_train_epochs: Epochs of the distillation, over the forget rows. Default: ours.
        retain_weight: Factor of the KL on retain answers. Default: ours.
    """

    alpha: Annotated[float, Interval(ge=0, le=1)] = 0.3
    beta: Annotated[float, Interval(ge=0, le=1)] = 0.1
    where: Literal["all", "region"] = "all"
    learning_rate: Annotated[float, Gt(0)] = 9e-4
    num_train_epochs: Annotated[float, Gt(0)] = 10.0
    retain_weight: Annotated[float, Gt(0)] = 1.0

    name: ClassVar[str] = "undo"

    def check_model(self, model: nn.Module) -> None:
        """Raise ConfigError for an adapter, as `noise`."""
        self._noise.check_model(model)

    @property
    def then(self) -> Phase:
        """Return the distillation of the damaged model."""
        arguments = {"learning_rate": self.learning_rate, "num_train_epochs": self.num_train_epochs, "max_steps": -1}
        return Phase(Distil(retain_weight=self.retain_weight), (self._noise,), arguments)

    @property
    def _noise(self) -> Noise:
        return Noise(alpha=self.alpha, beta=self.beta, where=self.where)
