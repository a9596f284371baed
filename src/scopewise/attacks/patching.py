"""Patching: put the model's hidden states into the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from scopewise.attacks.base import Attack, Facts, InapplicableError, Outcome, Suite, Work
from scopewise.attacks.leakage import Combine
from scopewise.attacks.states import Ridge, batches, by_layer, control_rows, means, with_one
from scopewise.data.batch import Batch
from scopewise.data.prompt import Encoded
from scopewise.models.engine import Engine


@dataclass(frozen=True, kw_only=True)
class Patching(Attack):
    """Activation patching: put the model's hidden states after each block into the target, and check for the answer.

    Signal: probability of the answer under the target, with the model's hidden states after block l at the positions
    that predict the answer. The leakage is that of the mean over layers; 1 minus it is the depth of erasure, with the
    weights of the source. Patching the target with its own states changes nothing, so the target is 1 at every layer.

    Calibration: an oracle that was trained separately has its hidden states in another basis. Then they destroy any answer
    in the target, also those of the retain scope, which both models know; the zero is too low, and a compatible model that
    forgot everything seems to leak. So the states are first mapped to the target's by a ridge regression (towards the
    identity) on one half of the retain rows. The other half is the control: a layer counts only if the oracle's states give
    the answers of these rows at least 0.7 of the probability that the target's own do. Without such a layer, the
    attack is not applicable, and the reason gives the shares.

    How to read it: leakage at early layers alone, with none at the last, means that the last layers hide the answer.

    Source: Unlearning Depth Score, arXiv:2605.24614 (gnueaj/unlearning-depth-score fc31639). Deviations: the states are
    taken from the blocks, while theirs takes the last one after the final norm, which is then applied twice; all answer
    tokens, while theirs uses annotated entities; no clipping; the calibration is ours.
    """

    name: ClassVar[str] = "patching"
    suite: ClassVar[Suite] = "quick"
    combine: ClassVar[Combine] = "mean"
    needs_target: ClassVar[bool] = True

    def work(self, facts: Facts) -> Work:
        """Return about what the attack costs on one model."""
        return Work(passes=16)

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Return the probability of the answers with each patch."""
        mine, theirs = subject.model.config, target.model.config
        layers = len(target.forward.blocks)
        if (mine.get_text_config().hidden_size, len(subject.forward.blocks)) != (
            theirs.get_text_config().hidden_size,
            layers,
        ):
            raise InapplicableError("the target has a different width or number of layers")
        retain = control_rows(facts)
        if len(retain) < 2:
            raise InapplicableError("fewer than two retain rows to calibrate with")
        shifts = _shifts(subject, target, subject.encode(retain[::2]))

        def read(states: list[Tensor], batch: Batch) -> dict[str, Tensor]:
            found = {}
            for layer, state in enumerate(states):
                mapped = state + (with_one(state.float()) @ shifts[layer]).to(state)
                with target.forward.patched(layer, batch, mapped):
                    found[f"layer {layer + 1}"] = target.forward.logits(batch)
            return found

        controls = by_layer(subject, facts, read, "calibrate", retain[1::2])
        return Outcome(facts.rows, by_layer(subject, facts, read, "patch"), {}, controls=means(controls))


def _shifts(subject: Engine, target: Engine, items: Sequence[Encoded]) -> list[Float[Tensor, "inputs hidden"]]:
    """Return, for each layer, the ridge regression from the model's states to what the target's differ by."""
    fits: list[Ridge] = []
    with torch.inference_mode():
        for _, batch in batches(items, subject):
            for layer, (state, wanted) in enumerate(
                zip(subject.forward.block_states(batch), target.forward.block_states(batch), strict=True)
            ):
                if layer == len(fits):
                    fits.append(Ridge())
                fits[layer].add(state.float(), wanted.float() - state.float())
        return [fit.solved() for fit in fits]
