"""Sharpness-aware minimisation of the forget loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt

from scopewise.methods.wrappers.base import Gradient, Inner, Parts, Step, Term, Wrapper, dot, moved


@dataclass(frozen=True, kw_only=True)
class SAM(Wrapper):
    """Take the forget gradient at the nearby weights where the forget loss is highest (sharpness-aware minimisation).

        g = ∇L_forget(θ),   ε = rho · g / ‖g‖,   gradient of the step = ∇L_forget(θ + ε) + ∇L_retain(θ)

    The norm is over all trained parameters. A step costs one more pass over the forget rows.

    Choose it as the cheapest wrapper against relearning. Its main knob, `rho`, is the radius within which the forget loss
    should stay low.

    Source: Fan et al., arXiv:2502.05374, who put it around NPO (β .015, retain weight 2.25). Reference code:
    OPTML-Group/Unlearn-Smooth fc655ba `sam_iterative.py`.

    Deviations: one perturbation for the whole optimiser step (there: for each micro-batch). Parameters are restored from a
    copy (there: ε is subtracted, which rounds).

    Attributes:
        rho: Norm of the perturbation, in units of the parameters. Default: the authors' script.
    """

    rho: Annotated[float, Gt(0)] = 0.01

    name: ClassVar[str] = "sam"

    def gradient(self, step: Step, term: Term, parts: Parts, inner: Inner) -> Gradient:
        """Return the gradient at θ + ε of the forget term, that at θ of the other."""
        found = inner(parts)
        norm = dot(found, found) ** 0.5
        if term != "forget" or norm == 0:
            return found
        with moved(step.parameters, found, self.rho / norm):
            return inner(parts)
