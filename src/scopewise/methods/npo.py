"""Negative preference optimization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from scopewise.methods.base import Answers, LossInput, Method


@dataclass(frozen=True, kw_only=True)
class NPO(Method):
    """Ascent that stops by itself: push each forget answer below what the model before unlearning gave it.

        L = -(2/β) log σ(-β log(P(y|x) / P_ref(y|x))) + CE(retain), P of the whole answer

    At the start it is ascent on the *summed* log-likelihood, so that long answers weigh more; the gradient fades as an
    answer falls below the reference.

    Choose it as the default that stops by itself. Its main knob, `beta`, trades how far below the reference an answer
    is pushed: small is nearly ascent, large stops early.

    Source: Zhang et al., arXiv:2404.05868, Eq. 3. Reference code: locuslab/open-unlearning d3d7cf9
    `trainer/utils.py::compute_dpo_loss` with `lose_inputs` alone, whose weights are 1 too.

    Deviations: none in the forget term. The retain CE is a mean over rows (there over the tokens of a micro-batch).

    Attributes:
        beta: β, per nat. Small: nearly ascent without end; large: stops early. Default: OpenUnlearning's `NPO.yaml`,
            the authors' TOFU settings.
        retain: Default: OpenUnlearning's `NPO.yaml`.
    """

    beta: float = 0.1
    retain: str = "ce"

    needs: ClassVar[frozenset[LossInput]] = frozenset({"nll", "reference_nll"})

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return each answer's NPO loss: (2/β) log 2 at the start, towards 0 as the answer is forgotten."""
        return -2 / self.beta * logsigmoid(-self.beta * answers.log_ratio())
