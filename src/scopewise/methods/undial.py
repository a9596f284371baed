"""Self-distillation with adjusted logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, LossInput, Method
from scopewise.ops import at_least_float32, token_cross_entropy


@dataclass(frozen=True, kw_only=True)
class UNDIAL(Method):
    """Learn from the model before unlearning, with the true token made unlikely: a fixed target, so it cannot run away.

        L = mean_t -Σ_v q_v log P(v | x, y_<t),   q = softmax(z_ref - β 1[v = y_t])

    Choose it when there are no retain rows and runaway has to be impossible. Its main knob, `beta`, sets the odds that
    are left to the true token: e^-β of what they were.

    Source: Dong et al., arXiv:2402.10052. Reference code: dong-river/LLM_unlearning 89856dc, and
    locuslab/open-unlearning d3d7cf9 `compute_undial_loss`, whose `UNDIAL.yaml` has no retain term either.

    Deviations: answer positions only, the mean over rows. open-unlearning averages over prompt and padding, where it
    also lowers token V-100; most of its loss is self-distillation on the prompt, so ours is the stronger one at the
    same learning rate.

    Attributes:
        beta: β: the odds of the true token are the reference's divided by e^β. Default: OpenUnlearning's `UNDIAL.yaml`;
            the paper tries 3, 10 and 30.
    """

    beta: float = 10.0

    needs: ClassVar[frozenset[LossInput]] = frozenset({"logits", "reference_logits"})

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return each answer's mean cross-entropy to the adjusted reference, in nats per token."""
        assert answers.reference_logits is not None
        adjusted = at_least_float32(answers.reference_logits).clone()
        adjusted.scatter_add_(-1, answers.label.unsqueeze(-1), adjusted.new_full((len(adjusted), 1), -self.beta))
        return answers.mean(token_cross_entropy(adjusted.softmax(-1), answers.logits))
