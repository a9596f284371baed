"""RepSelect: forget along directions that little else uses."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from scopewise.methods.wrappers.base import Gradient, Inner, Parts, Step, Term, Wrapper, assign, restored

_ROUNDING = 1e-6
"""Directions smaller than this share of the largest are rounding errors, and no measure for the others."""


@dataclass(frozen=True, kw_only=True)
class RepSelect(Wrapper):
    """Compute the gradient of all forget rows once, damp its largest directions, and use the result in every step.

        G = ∇L_forget over all forget rows, where an adversary has relearned them (one epoch of SGD from the weights before)
        G ≈ Σ_i S_i u_i v_iᵀ;   each direction u_i, and each v_i, of G is scaled by S_min / S_i
        the forget gradient of every step is that of the first

    The largest directions belong to general features, which relearning restores; damping them spreads the update over the
    directions that are specific to the rows.

    Choose it with `optim: sgd`, all parameters, the MLP matrices as region (`named`), and `early_stopping.max_kl: 0.01`,
    which is the authors' stop rule. Its main knob is `components`.

    Source: arXiv:2606.17168. Reference code: filyp/open-unlearning 5955f30 `repselect_simple.py`.

    Deviations: the adversary moves the trained matrices themselves (there LoRA on them). G is a mean over rows (there a sum
    over batches), so the learning rate is larger by the number of batches. The gradient of parameters that are not matrices
    is left as it is.

    Attributes:
        components: Number of directions that are damped. Default: the authors' experiments.
        adversary_learning_rate: Learning rate of the adversary; 0 for no adversary. Default: the authors' experiments.
        rows: Rows in each of its steps. Default: the default batch size.
    """

    components: Annotated[int, Ge(1)] = 512
    adversary_learning_rate: Annotated[float, Ge(0)] = 0.01
    rows: Annotated[int, Ge(1)] = 16

    name: ClassVar[str] = "repselect"
    needs_start: ClassVar[bool] = True

    def gradient(self, step: Step, term: Term, parts: Parts, inner: Inner) -> Gradient:
        """Return the same filtered gradient in every step for the forget term, and what is wrapped for the other."""
        if term != "forget":
            return inner(parts)
        if self.name not in step.memory:
            step.memory[self.name] = self._filtered(step)
        inner(parts)  # its loss, for the log
        return [part.clone() for part in step.memory[self.name]]

    def _filtered(self, step: Step) -> Gradient:
        # Dropout here must not depend on the step at which a training is resumed.
        with torch.random.fork_rng(), restored(step.parameters):
            torch.manual_seed(0)
            assign(step.parameters, step.start)
            order = list(range(len(step.forget_rows)))
            random.Random(self.name).shuffle(order)
            for first in range(0, len(order) if self.adversary_learning_rate else 0, self.rows):
                found = step.relearning_gradient(order[first : first + self.rows])
                with torch.no_grad():
                    for parameter, part in zip(step.parameters, found, strict=True):
                        parameter.sub_(part, alpha=self.adversary_learning_rate)
            return [self.damped(part) if part.dim() == 2 else part for part in step.forget_gradient()]

    def damped(self, gradient: Tensor) -> Tensor:
        """Return a matrix with its largest directions damped to the size of the smallest, on both sides."""
        matrix = gradient.float()
        count = min(self.components, *matrix.shape)
        with torch.random.fork_rng():  # the decomposition draws
            torch.manual_seed(0)
            left, sizes, right = torch.svd_lowrank(matrix, q=count)
        kept = sizes > _ROUNDING * sizes[0]
        if not bool(kept.any()):
            return gradient
        left, sizes, right = left[:, kept], sizes[kept], right[:, kept]
        excess = 1 - sizes[-1:] / sizes
        matrix = matrix - (matrix @ right * excess) @ right.T
        matrix = matrix - left @ ((left.T @ matrix) * excess.unsqueeze(-1))
        return matrix.to(gradient.dtype)
