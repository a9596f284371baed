"""Patching: put the model's hidden states into the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from scopewise.attacks.base import Attack, Facts, InapplicableError, Outcome, Suite, Work
from scopewise.attacks.leakage import Combine
from scopewise.attacks.states import by_layer
from scopewise.data.batch import Batch
from scopewise.models.engine import Engine


@dataclass(frozen=True, kw_only=True)
class Patching(Attack):
    """Activation patching: put the model's hidden states after each block into the target, and check for the answer.

    Signal: probability of the answer under the target, with the model's hidden states after block l at the positions
    that predict the answer. The leakage is that of the mean over layers; 1 minus it is the depth of erasure, with the
    weights of the source. Patching the target with its own states changes nothing, so the target is 1 at every layer.

    Source: Unlearning Depth Score, arXiv:2605.24614 (gnueaj/unlearning-depth-score fc31639). Deviations: the states are
    taken from the blocks, while theirs takes the last one after the final norm, which is then applied twice; all answer
    tokens, while theirs uses annotated entities; no clipping.
    """

    name: ClassVar[str] = "patching"
    suite: ClassVar[Suite] = "quick"
    combine: ClassVar[Combine] = "mean"
    needs_target: ClassVar[bool] = True

    def work(self, facts: Facts) -> Work:
        """Return about what the attack costs on one model."""
        return Work(passes=12)

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Return the probability of the answers with each patch."""
        mine, theirs = subject.model.config, target.model.config
        layers = len(target.forward.blocks)
        if (mine.get_text_config().hidden_size, len(subject.forward.blocks)) != (
            theirs.get_text_config().hidden_size,
            layers,
        ):
            raise InapplicableError("the target has another width or number of layers")

        def read(states: list[Tensor], batch: Batch) -> dict[str, Tensor]:
            found = {}
            for layer, state in enumerate(states):
                with target.forward.patched(layer, batch, state):
                    found[f"layer {layer + 1}"] = target.forward.logits(batch)
            return found

        return Outcome(facts.rows, by_layer(subject, facts, read, "patch"), {})
