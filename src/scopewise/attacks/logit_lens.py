"""Logit lens: decode each layer with final norm and lm_head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from scopewise.attacks.base import Attack, Facts, InapplicableError, Outcome, Suite, Work
from scopewise.attacks.states import by_layer, control_rows, means
from scopewise.data.batch import Batch
from scopewise.models.architecture import read_out
from scopewise.models.engine import Engine


@dataclass(frozen=True, kw_only=True)
class LogitLens(Attack):
    """Logit lens: decode the hidden state after each block, to see whether unlearning only changed the last layers.

    Signal: probability of the answer's tokens at each layer, decoded with the model's own final norm and lm_head, and
    with the target's (in case unlearning changed the lm_head). The last layer with the model's own lm_head is the
    model's output.

    Calibration: a layer counts only if it can be read in the oracle as well as in the target: on retain rows, which both
    know, the oracle must give at least 0.7 of the target's probability. Otherwise the target's head cannot read the
    oracle's basis, and the zero would be too low. Without such a layer the attack is not applicable.

    Source: nostalgebraist's logit lens; Patil et al., arXiv:2309.17410 (as an attack); a fixed decoder as in Unlearning
    Depth Score fc31639, arXiv:2605.24614. Deviation: the latter compares log-probabilities, and only with the target.
    """

    name: ClassVar[str] = "logit_lens"
    suite: ClassVar[Suite] = "quick"
    needs_target: ClassVar[bool] = True

    def work(self, facts: Facts) -> Work:
        """Return about what the attack costs on one model."""
        return Work(passes=4)

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Return the probability of the answers at each layer."""
        decoders = {"own head": subject.model, "target's head": target.model}

        def read(states: list[Tensor], _: Batch) -> dict[str, Tensor]:
            return {
                f"layer {i + 1}, {name}": read_out(decoder, state)
                for name, decoder in decoders.items()
                for i, state in enumerate(states)
            }

        retain = control_rows(facts)
        if not retain:
            raise InapplicableError("no retain rows to calibrate with")
        controls = by_layer(subject, facts, read, "calibrate", retain)
        return Outcome(facts.rows, by_layer(subject, facts, read, "logit lens"), {}, controls=means(controls))
