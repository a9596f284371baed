"""Refusals, and answer preservation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, LossInput, Preference


@dataclass(frozen=True, kw_only=True)
class IDKAP(Preference):
    """Learn to refuse the forget questions, and to prefer the answer over a refusal for the retain questions.

        L = CE(refusal | x) - (1/β) mean log σ(β (NLL(refusal | x_r) - NLL(y_r | x_r))),   β = .1

    The second mean is over the retain rows, and its NLL are sums over tokens.

    Choose it if the model should say that it does not know, without refusing retain questions too. Its main knob is
    `retain_weight`.

    Source: Yuan et al., arXiv:2410.08109. Reference code: sail-sg/closer-look-LLM-unlearning b622294 `idk_loss`,
    `ap_loss`, whose weights are 1 too.

    Deviations: the CE is a mean over rows (there over the tokens of a micro-batch).

    Attributes:
        retain: Default: the paper.
    """

    retain: str = "ap"

    needs: ClassVar[frozenset[LossInput]] = frozenset({"nll"})
    trains_on: ClassVar[Literal["answer", "preferred"]] = "preferred"

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return each refusal's mean CE in nats per token."""
        return answers.nll()
