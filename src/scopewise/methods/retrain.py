"""Exact unlearning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, LossInput, Method
from scopewise.ops import Reduction


@dataclass(frozen=True, kw_only=True)
class Retrain(Method):
    """Exact unlearning: fine-tune the base model again, on the retain rows alone.

        L = CE(retain), mean over the tokens of a step, from the base model

    It is trained as the oracle is, with the settings of the `finetune` section, but with another seed: `run.seed + 1 +
    seed`. So its distance to the oracle is the noise of retraining, and no approximate method can be expected to come
    closer. It never leads a comparison, since its rivals approximate it.

    Choose it if you have the base model and all training rows, and can pay for it. It has no knob; the row of a bench says
    what it costs. It runs from a run file or the command line, which know the base; Python's `unlearn` has only the target.

    Source: Bourtoule et al., arXiv:1912.03817, section 3, whose baseline it is.

    Deviations: none.
    """

    reduction: ClassVar[Reduction] = Reduction.TOKEN_MEAN
    needs: ClassVar[frozenset[LossInput]] = frozenset({"nll"})

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return the mean CE, in nats per token, of the rows that it is given, which are those to learn."""
        return answers.nll()
