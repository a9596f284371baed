"""Self-distillation with adjusted logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, LossInput, Method
from scopewise.ops import at_least_float32, token_cross_entropy


@dataclass(frozen=True, kw_only=True)
class UNDIAL(Method):
    """Self-distillation from the model before unlearning, with the logit of the true token lowered.

        L = mean_t -Σ_v q_v log P(v | x, y_<t),   q = softmax(z_ref - β 1[v = y_t])

    The target distribution is fixed, so the loss cannot diverge.

    Choose it if you have no retain rows and training must not diverge. The main knob is `beta`: the odds of the true
    token become e^-β of what they were.

    Source: Dong et al., arXiv:2402.10052. Reference code: dong-river/LLM_unlearning 89856dc, and
    locuslab/open-unlearning d3d7cf9 `compute_undial_loss`, whose `UNDIAL.yaml` has no retain term either.

    Deviations: answer positions only, mean over rows. open-unlearning also averages over prompt and padding, where it
    lowers token V-100. Most of its loss is therefore self-distillation on the prompt, and ours forgets more at the same
    learning rate.

    Attributes:
        beta: β: the odds of the true token are the reference's divided by e^β. Default: OpenUnlearning's `UNDIAL.yaml`;
            the paper tries 3, 10 and 30.
    """

    beta: float = 10.0

    needs: ClassVar[frozenset[LossInput]] = frozenset({"logits", "reference_logits"})
    searched: ClassVar[Mapping[str, tuple[float, float]]] = {"beta": (1.25, 80.0)}

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return each answer's mean cross-entropy to the adjusted reference, in nats per token."""
        assert answers.reference_logits is not None
        adjusted = at_least_float32(answers.reference_logits).clone()
        adjusted.scatter_add_(-1, answers.label.unsqueeze(-1), adjusted.new_full((len(adjusted), 1), -self.beta))
        return answers.mean(token_cross_entropy(adjusted.softmax(-1), answers.logits))
