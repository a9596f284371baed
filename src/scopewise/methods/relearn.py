"""Unlearning by learning other answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, Need, Preference
from scopewise.ops import Reduction


@dataclass(frozen=True, kw_only=True)
class ReLearn(Preference):
    """Learn answers that give nothing away in place of the forget answers; ascent nowhere.

    Formula: L = CE(forget questions, replaced answers) + CE(retain) + KL(reference ‖ model)(retain).

    Source: Xu et al., arXiv:2502.11190 (L_GDF + L_GDR + L_KLR, weights 1). Reference code: zjunlp/unlearn 0800fd2. Deviations:
    the replaced answers are the rows' own (`alternative`), shipped refusals, or the model's own inventions, where the paper
    pays a language model for vague answers, four rephrased questions each and general questions; the shipped pipeline also
    keeps the original question with its *memorised* answer among the positive rows, and that is left out here.
    """

    alternative: Literal["row", "refusal", "generated"] = "refusal"
    retain: str = "ce+kl"

    reduction: ClassVar[Reduction] = Reduction.TOKEN_MEAN
    needs: ClassVar[frozenset[Need]] = frozenset({"nll"})
    trains_on: ClassVar[Literal["answer", "alternative"]] = "alternative"

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return the mean CE of each replaced answer in nats per token."""
        return answers.nll()
