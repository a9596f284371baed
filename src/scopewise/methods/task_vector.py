"""Task vector negation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, LossInput, Method


@dataclass(frozen=True, kw_only=True)
class TaskVector(Method):
    """Train further on the forget answers, then move the weights in the opposite direction.

        θ_new = θ - α (θ_learnt - θ),   θ_learnt trained by descent on L = CE(forget)

    Choose it for a single edit with one knob, `scale`: higher forgets more and causes more general damage.

    Source: Ilharco et al., arXiv:2212.04089; as an unlearning baseline Shi et al., arXiv:2407.06460. Reference code:
    jaechan-repo/muse_bench 54719c5 `task_vector.py`.

    Deviations: the arithmetic is in float32 (there in bf16, which rounds small differences away). With LoRA, the
    difference is taken between the products BA, exactly; if the target has an adapter, the result is an adapter of
    twice the rank.

    Attributes:
        scale: α. To change it you have to train again. Default: MUSE's script, chosen there among 1 to 16.
    """

    scale: float = 5.0

    needs: ClassVar[frozenset[LossInput]] = frozenset({"nll"})
    searched: ClassVar[Mapping[str, tuple[float, float]]] = {"scale": (1.0, 16.0)}

    @property
    def change_factor(self) -> float:
        """Return -α: the opposite direction."""
        return -self.scale

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return each answer's mean CE in nats per token (descent)."""
        return answers.nll()
