"""Forgetting that does not work against the retain term."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from scopewise.errors import ConfigError
from scopewise.methods.base import Method
from scopewise.methods.wrappers.base import Gradient, Step, Wrapper, add, dot

_ROUNDING = 1e-5
"""Entries of the retain gradient below this share of the largest forget entry are rounding errors, whose sign says nothing:
before the first step, KL and distances have no other gradient."""


@dataclass(frozen=True, kw_only=True)
class ConflictProjection(Wrapper):
    """Remove the part of the forget gradient that raises the retain loss.

        projection:  g_f ← g_f - ⟨g_f, g_r⟩ / ‖g_r‖² · g_r   if ⟨g_f, g_r⟩ < 0
        sign:        g_f ← 0 where g_f and g_r have opposite signs

    Choose it if forgetting is easy but retention falls. `projection` removes one direction; `sign` removes far more, and
    forgets more slowly.

    Source: projection: Wang et al., arXiv:2503.09117 (GRU), after PCGrad (Yu et al., arXiv:2001.06782); sign: Sondej et
    al., arXiv:2506.12484 (MUDMAN). AGT (arXiv:2602.01703) adds a penalty on the angle instead; in its code
    (TiezMind/AGT-unlearning 7b3b2b0 `calculate_conflict_penalty`) the penalty is computed from detached gradients and so
    changes nothing, which is why it is not here.

    Deviations: over the gradients of one step, over all trained parameters together (GRU smooths the retain gradient over
    steps; MUDMAN accumulates it, and zeroes the forget gradient where there is no retain gradient; here that is no
    conflict).

    Attributes:
        rule: `projection` or `sign`. Default: ours.
    """

    rule: Literal["projection", "sign"] = "projection"

    name: ClassVar[str] = "conflict_projection"

    def check(self, method: Method) -> None:
        """Raise ConfigError for a method without a retain term."""
        if not method.retain_terms:
            raise ConfigError(
                "unlearn.wrapper_args.conflict_projection: a method without a retain term, so there is no conflict; set "
                "unlearn.method_args.retain=ce, or leave the wrapper out"
            )

    def combine(self, step: Step, forget: Gradient, retain: Gradient) -> tuple[Gradient, Gradient]:
        """Return the forget gradient without its conflict, and the retain gradient as it is."""
        if self.rule == "sign":
            floor = _ROUNDING * max((float(f.abs().max()) for f in forget if f.numel()), default=0.0)
            return [
                torch.where((f * r < 0) & (r.abs() > floor), 0.0, f) for f, r in zip(forget, retain, strict=True)
            ], retain
        product = dot(forget, retain)
        return (add(forget, retain, -product / dot(retain, retain)) if product < 0 else forget), retain
