"""Negative preference optimization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from scopewise.methods.base import Answers, LossInput, Method


@dataclass(frozen=True, kw_only=True)
class NPO(Method):
    """Negative preference optimization: ascent that fades out as an answer becomes less likely than at the start.

        L = -(2/β) log σ(-β log(P(y|x) / P_ref(y|x))) + CE(retain), P of the whole answer

    In the first step it equals ascent on the *summed* log-likelihood, so long answers have more weight. The gradient
    fades as the answer becomes less likely than under the reference, the model before unlearning.

    Choose it as the default among methods that stop by themselves. The main knob is `beta`: small is close to plain
    ascent and pushes answers far below the reference, large stops early.

    Source: Zhang et al., arXiv:2404.05868, Eq. 3. Reference code: locuslab/open-unlearning d3d7cf9
    `trainer/utils.py::compute_dpo_loss` with only `lose_inputs`; its weights are 1 too.

    Deviations: none in the forget term. The retain CE is a mean over rows (there over the tokens of a micro-batch).

    Attributes:
        beta: β, per nat. Small is close to unlimited ascent; large stops early. Default: OpenUnlearning's `NPO.yaml`,
            the authors' TOFU settings.
        retain: Default: OpenUnlearning's `NPO.yaml`.
    """

    beta: float = 0.1
    retain: str = "ce"

    needs: ClassVar[frozenset[LossInput]] = frozenset({"nll", "reference_nll"})
    searched: ClassVar[Mapping[str, tuple[float, float]]] = {"beta": (0.01, 1.0)}

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return each answer's NPO loss: (2/β) log 2 at the start, approaching 0 as the answer is forgotten."""
        return -2 / self.beta * logsigmoid(-self.beta * answers.log_ratio())
