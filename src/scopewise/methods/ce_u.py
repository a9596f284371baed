"""Cross-entropy unlearning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scopewise.methods.base import Answers, Method
from scopewise.ops import Reduction, at_least_float32, token_cross_entropy, token_position


@dataclass(frozen=True, kw_only=True)
class CEU(Method):
    """Train on the model's own distribution without the true token; bounded gradient, no reference model.

        L = mean_t -Σ_v q_v log P(v | x, y_<t),   q = softmax(z with z_{y_t} = -∞) without gradient

    The mean is over all tokens of a step except the first n of each answer. The loss tends to the entropy of the other
    tokens, not to 0, so it does not measure progress.

    Choose it if you have neither retain data nor a reference model. The main knob is `ignore_first_tokens`: higher
    keeps the first words fluent, but leaves them recoverable.

    Source: Yang, arXiv:2503.01224. Reference code: locuslab/open-unlearning d3d7cf9 `ceu.py`, which has no retain term
    either.

    Deviations: none in the loss. Answers of n tokens or fewer have weight 0 (there a micro-batch of only such answers
    gives NaN).

    Attributes:
        ignore_first_tokens: n: the first n tokens are not trained; they stay fluent and recoverable. Default:
            OpenUnlearning's `CEU.yaml`, after a footnote of the paper.
    """

    ignore_first_tokens: int = 1

    reduction: ClassVar[Reduction] = Reduction.TOKEN_MEAN
    stops_gradient: ClassVar[bool] = True

    def weight(self, token_counts: Int[Tensor, "batch"]) -> Float[Tensor, "batch"]:
        """Return the number of tokens after the first n."""
        return (token_counts - self.ignore_first_tokens).clamp(min=0).float()

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return each answer's mean cross-entropy over the tokens after the first n, in nats per token; 0 without any."""
        logits = at_least_float32(answers.logits)
        others = logits.detach().scatter(-1, answers.label.unsqueeze(-1), float("-inf")).softmax(-1)
        counted = token_position(answers.row, answers.batch) >= self.ignore_first_tokens
        value = token_cross_entropy(others, logits) * counted
        share = answers.mean(counted.to(value.dtype))
        return torch.where(share > 0, answers.mean(value) / share.clamp(min=1e-9), 0.0)
