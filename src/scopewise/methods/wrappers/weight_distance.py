"""Distance from the weights before unlearning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt

from scopewise.methods.wrappers.base import Gradient, Step, Wrapper, add, dot


@dataclass(frozen=True, kw_only=True)
class WeightDistance(Wrapper):
    """Move the trained weights away from where they were, up to a distance.

        L = L_method + weight · max(0, distance - ‖θ - θ_before‖ / ‖θ_before‖)

    Choose it to resist relearning: the closer the weights stay, the more easily fine-tuning recovers the facts. Its main
    knob is `distance`; if it is large, the retain term cannot repair the damage to retention. On a fresh adapter, θ_before
    is its initialisation.

    Source: arXiv:2505.22310, where the distance from the weights before unlearning predicts the resistance to relearning.

    Deviations: ours as a term of the loss; the distance is relative and bounded.

    Attributes:
        distance: Minimum distance, as a share of the norm of the weights before unlearning. Default: ours.
        weight: Factor of the term. Default: ours.
    """

    distance: Annotated[float, Gt(0)] = 0.1
    weight: Annotated[float, Gt(0)] = 1.0

    name: ClassVar[str] = "weight_distance"
    needs_start: ClassVar[bool] = True

    def combine(self, step: Step, forget: Gradient, retain: Gradient) -> tuple[Gradient, Gradient]:
        """Return the forget gradient with that of the distance, which is zero at θ_before itself."""
        difference = add([p.detach() for p in step.parameters], list(step.start), -1.0)
        length, size = dot(difference, difference) ** 0.5, dot(list(step.start), list(step.start)) ** 0.5
        if length == 0 or size == 0 or length >= self.distance * size:
            return forget, retain
        return add(forget, difference, -self.weight / (length * size)), retain
