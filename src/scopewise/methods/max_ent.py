"""The entropy of the next token, maximised at the forget answers: presets of one loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, Method
from scopewise.ops import Reduction, token_kl_from_uniform


@dataclass(frozen=True, kw_only=True)
class Uniform(Method):
    """Base of methods that make every next token equally likely; its presets differ in the weight."""

    reduction: ClassVar[Reduction] = Reduction.TOKEN_MEAN

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return each answer's mean KL from the uniform distribution, in nats."""
        return answers.mean(token_kl_from_uniform(answers.logits))


@dataclass(frozen=True, kw_only=True)
class MaxEnt(Uniform):
    """Make every next token equally likely on the forget answers.

        L = mean_t KL(uniform ‖ P(· | x, y_<t)) + CE(retain)

    Choose it as the first of UNDO's three stages: distillation cannot transfer what the logits no longer contain. Its main
    knob is `retain_weight`.

    Source: Lee et al., arXiv:2506.06278. Reference code: AddieFoote/distillation-robustify-unlearning edbf111 `maxent.py`.
    It is ME + GD at ten times the forget weight.

    Deviations: answers only (the code: every token of its texts).

    Attributes:
        retain: Default: the code.
    """

    retain: str = "ce"


@dataclass(frozen=True, kw_only=True)
class MEGD(Uniform):
    """Make every next token equally likely on the forget answers, with a small weight.

        L = .1 · mean_t KL(uniform ‖ P(· | x, y_<t)) + CE(retain)

    Choose it if the model should have no preference for any answer, instead of learning another one. Its main knob is
    `forget_weight`.

    Source: Yuan et al., arXiv:2410.08109. Reference code: sail-sg/closer-look-LLM-unlearning b622294 `get_me_loss`,
    `scripts/tofu/me_gd.sh`.

    Deviations: answers only (the script computes it over questions as well, with `mask=false`). The code adds 1e-12 to
    each probability.

    Attributes:
        forget_weight: Default: the authors' script.
        retain: Default: the authors' script.
    """

    forget_weight: float = 0.1
    retain: str = "ce"
