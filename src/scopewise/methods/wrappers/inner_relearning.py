"""An adversary inside each step, who relearns some instances."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Interval

from scopewise.data.instances import instance_of
from scopewise.methods.wrappers.base import Gradient, Inner, Parts, Step, Term, Wrapper, add, restored


@dataclass(frozen=True, kw_only=True)
class InnerRelearning(Wrapper):
    """Add the forget gradient at the weights that an adversary reaches by relearning other instances.

        θ' = θ after some Adam steps on CE(true answers) of the forget rows of a random half of the instances
        gradient of the step = ∇L_forget(θ) + weight · ∇L_forget(θ'; rows of the other half) + ∇L_retain(θ)

    The gradient at θ' is used at θ as it is (first order). Each step draws the half, the number of Adam steps (1 to
    `steps`) and their rows anew. A row without an instance is about the longest name in its question, or else about itself.

    Choose it if forgetting must survive fine-tuning: it makes relearning slower than any other wrapper here. It lowers
    retention, and costs `steps` / 2 more passes over a batch on average. Its main knob is `steps`; set `learning_rate` to
    that of the attacks to be resisted.

    Source: ours, after first-order meta-learning (Nichol et al., arXiv:1803.02999) as TAR uses it (Tamirisa et al.,
    arXiv:2408.00761).

    Deviations: the adversary relearns other instances than those whose gradient is taken, so that the model does not
    merely become hard to train on the same rows.

    Attributes:
        steps: Maximum number of Adam steps of the adversary. Default: ours, from a first trial.
        learning_rate: Learning rate of the adversary. Default: ours; set it to the rates of the attack `relearning`, which
            are those of the run's fine-tuning.
        rows: Rows in each of its steps. Default: the default batch size.
        share: Share (0-1) of the instances that it relearns. Default: ours.
        weight: Factor of the gradient at θ'. Default: ours.
    """

    steps: Annotated[int, Ge(1)] = 6
    learning_rate: Annotated[float, Gt(0)] = 1e-3
    rows: Annotated[int, Ge(1)] = 16
    share: Annotated[float, Interval(gt=0, lt=1)] = 0.5
    weight: Annotated[float, Gt(0)] = 1.0

    name: ClassVar[str] = "inner_relearning"

    def gradient(self, step: Step, term: Term, parts: Parts, inner: Inner) -> Gradient:
        """Return the forget gradient at θ and, of the instances that were not relearned, at θ'."""
        found = inner(parts)
        if term != "forget":
            return found
        rng = random.Random(f"{step.seed}/{self.name}")
        relearned = self._relearned(step, rng)
        others = step.keep(parts, set(range(len(step.forget_rows))) - set(relearned))
        with restored(step.parameters):
            optimizer = torch.optim.Adam(step.parameters, lr=self.learning_rate)
            for _ in range(rng.randint(1, self.steps)):
                drawn = rng.sample(relearned, min(self.rows, len(relearned)))
                gradient = step.relearning_gradient(drawn)
                for parameter, part in zip(step.parameters, gradient, strict=True):
                    parameter.grad = part
                optimizer.step()
            for parameter in step.parameters:
                parameter.grad = None
            return add(found, inner(others), self.weight)

    def _relearned(self, step: Step, rng: random.Random) -> list[int]:
        """Return the forget rows of the instances that are relearned: at least one instance, and not all if there are two."""
        instance_of_row = [instance_of(row.instance, row.question) for row in step.forget_rows]
        instances = sorted(set(instance_of_row))
        count = min(max(1, round(self.share * len(instances))), max(1, len(instances) - 1))
        chosen = set(rng.sample(instances, count))
        return [i for i, instance in enumerate(instance_of_row) if instance in chosen]
