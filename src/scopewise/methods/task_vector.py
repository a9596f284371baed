"""Task vector negation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, LossInput, Method


@dataclass(frozen=True, kw_only=True)
class TaskVector(Method):
    """Learn the forget answers still better, then go as far in the opposite direction.

        θ_new = θ - α (θ_learnt - θ),   θ_learnt trained by descent on L = CE(forget)

    Choose it for one edit with one knob: `scale` trades forgetting against general damage.

    Source: Ilharco et al., arXiv:2212.04089; as an unlearning baseline Shi et al., arXiv:2407.06460. Reference code:
    jaechan-repo/muse_bench 54719c5 `task_vector.py`.

    Deviations: the arithmetic is in float32 (there bf16, where small differences round away). With LoRA the difference
    is taken of the products BA, exactly; where the target came with an adapter, the result is an adapter of twice the
    rank.

    Attributes:
        scale: α. It can be changed afterwards only by training again. Default: MUSE's script, chosen there among 1 to
            16.
    """

    scale: float = 5.0

    needs: ClassVar[frozenset[LossInput]] = frozenset({"nll"})

    @property
    def change_factor(self) -> float:
        """Return -α: the other direction."""
        return -self.scale

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return each answer's mean CE in nats per token: this is descent."""
        return answers.nll()
