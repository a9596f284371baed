"""Logit lens: decode each layer with final norm and lm_head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from scopewise.attacks.base import Attack, Facts, Outcome, Suite
from scopewise.attacks.states import by_layer
from scopewise.data.batch import Batch
from scopewise.models.architecture import read_out
from scopewise.models.engine import Engine


@dataclass(frozen=True, kw_only=True)
class LogitLens(Attack):
    """Read the answer from the state after each block, through the final norm and the head: was only the end changed?

    Signal: probability of the answer's tokens, layer by layer, through the model's own norm and head, and through the
    target's (which sees past a changed head). The last layer through the own head is the model's output.

    Source: nostalgebraist's logit lens; Patil et al., arXiv:2309.17410 (as an attack); fixed decoder as in Unlearning Depth
    Score fc31639, arXiv:2605.24614. Deviation: theirs compares log-probabilities against the target alone.
    """

    name: ClassVar[str] = "logit_lens"
    suite: ClassVar[Suite] = "quick"
    needs_target: ClassVar[bool] = True

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Return the probability of the answers at each layer."""
        decoders = {"own head": subject.model, "target's head": target.model}

        def read(states: list[Tensor], _: Batch) -> dict[str, Tensor]:
            return {
                f"layer {i + 1}, {name}": read_out(decoder, state)
                for name, decoder in decoders.items()
                for i, state in enumerate(states)
            }

        return Outcome(facts.rows, by_layer(subject, facts, read, "logit lens"), {})
