"""Unlearning by learning other answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, LossInput, Preference
from scopewise.ops import Reduction


@dataclass(frozen=True, kw_only=True)
class ReLearn(Preference):
    """Learn answers that give nothing away in place of the forget answers; ascent nowhere.

        L = CE(forget questions, other answers) + CE(retain) + KL(reference ‖ model)(retain)

    Choose it when answers have to stay fluent and on the subject: it ascends nowhere. Its main knob is what the other
    answers say (`alternative`); `retain_weight` trades as in `ga_descent`.

    Source: Xu et al., arXiv:2502.11190 (L_GDF + L_GDR + L_KLR, weights 1). Reference code: zjunlp/unlearn 0800fd2.

    Deviations: no paid language model: the other answers are shipped refusals, the model's own inventions, or the rows'
    own (`alternative: row`, which is how to give it the paper's vague answers). No rephrased questions (the paper has
    four of each) and no general questions among the forget rows. The shipped pipeline also keeps the original question
    with its *memorised* answer among the positive rows; that is left out. KL over answer tokens (there over prompts and
    padding too).

    Attributes:
        alternative: Default: ours, since the paper's vague answers take a language model.
        retain: Default: the paper.
    """

    alternative: Literal["row", "refusal", "generated"] = "refusal"
    retain: str = "ce+kl"

    reduction: ClassVar[Reduction] = Reduction.TOKEN_MEAN
    needs: ClassVar[frozenset[LossInput]] = frozenset({"nll"})
    trains_on: ClassVar[Literal["answer", "preferred"]] = "preferred"

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return the mean CE of each replaced answer in nats per token."""
        return answers.nll()
