"""Linear probe: decode each layer through a fitted map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt
from torch import Tensor

from scopewise.attacks.base import Attack, Facts, InapplicableError, Outcome, Suite, Work
from scopewise.attacks.states import Ridge, batches, by_layer, with_one
from scopewise.data.batch import Batch
from scopewise.models.architecture import read_out
from scopewise.models.engine import Engine


@dataclass(frozen=True, kw_only=True)
class Probe(Attack):
    """Linear probe: map each layer to the target's last layer, fitted on the attacker's facts and tested on others.

    Signal: probability of the answer's tokens decoded from layer l by W_l and the target's final norm and lm_head. W_l
    is the ridge regression (closed form) from the model's hidden states after block l to the target's after the last
    block, fitted on the attacker's rows and the retain scope. A probe that is trained on the tested facts could learn
    them itself; this probe has not seen them. The oracle's value shows how much it guesses.

    Source: the tuned lens, Belrose et al., arXiv:2303.08112, fitted in closed form; its use as a test of unlearning is
    ours.

    Attributes:
        ridge: Ridge penalty, as a multiple of the mean square of the states. Default: ours.
    """

    ridge: Annotated[float, Gt(0)] = 1e-2

    name: ClassVar[str] = "probe"
    suite: ClassVar[Suite] = "full"
    needs_target: ClassVar[bool] = True

    def work(self, facts: Facts) -> Work:
        """Return about what the attack costs on one model."""
        return Work(passes=6)

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Return the probability of the answers decoded from each layer."""
        facts.check_split()
        maps = self._fit(subject, facts, target)

        def read(states: list[Tensor], _: Batch) -> dict[str, Tensor]:
            return {
                f"layer {i + 1}": read_out(target.model, with_one(state) @ maps[i].to(state))
                for i, state in enumerate(states)
            }

        return Outcome(facts.tested, by_layer(subject, facts, read, "probe", facts.tested), {})

    def _fit(self, subject: Engine, facts: Facts, target: Engine) -> list[Tensor]:
        items = subject.encode([*facts.held, *facts.retain])
        fits: list[Ridge] = []
        with torch.inference_mode():
            for _, batch in batches(items, subject):
                wanted = target.forward.block_states(batch)[-1].float()
                for i, state in enumerate(subject.forward.block_states(batch)):
                    if state.shape[-1] != wanted.shape[-1]:
                        raise InapplicableError("the target has a different width")
                    if i == len(fits):
                        fits.append(Ridge(self.ridge))
                    fits[i].add(state.float(), wanted)
            return [fit.solved() for fit in fits]
