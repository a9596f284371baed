"""White-box attacks that read hidden states at the positions that predict the answers: logit lens, probe, patching."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt
from jaxtyping import Float
from torch import Tensor

from scopewise.attacks.base import Attack, Facts, InapplicableError, Outcome, mean_of_known
from scopewise.bars import bar
from scopewise.data.batch import Batch, collate, length_batches, to_device
from scopewise.data.prompt import Encoded
from scopewise.data.rows import Row
from scopewise.models.architecture import read_out
from scopewise.models.engine import Engine
from scopewise.ops import sequence_mean, token_log_probs


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

    name = "logit_lens"
    suite = "quick"
    needs_target = True
    passes = 4

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

    name = "probe"
    suite = "full"
    needs_target = True
    passes = 6

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Return the probability of the answers decoded from each layer."""
        facts.check_split()
        if _width(subject) != _width(target):
            raise InapplicableError("the target has a different width")
        known = [*facts.held, *facts.retain]
        maps = _ridges(subject, target, known, lambda _, state, theirs: theirs[-1].float(), self.ridge)

        def read(states: list[Tensor], _: Batch) -> dict[str, Tensor]:
            return {
                f"layer {i + 1}": read_out(target.model, with_one(state) @ maps[i].to(state))
                for i, state in enumerate(states)
            }

        return Outcome(facts.tested, by_layer(subject, facts, read, "probe", facts.tested), {})


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

    name = "patching"
    suite = "quick"
    combine = "mean"
    needs_target = True
    passes = 16

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Return the probability of the answers with each patch."""
        shapes = [(_width(engine), len(engine.forward.blocks)) for engine in (subject, target)]
        if shapes[0] != shapes[1]:
            raise InapplicableError("the target has a different width or number of layers")
        retain = control_rows(facts)
        if len(retain) < 2:
            raise InapplicableError("fewer than two retain rows to calibrate with")
        shifts = _ridges(subject, target, retain[::2], lambda i, state, theirs: theirs[i].float() - state)

        def read(states: list[Tensor], batch: Batch) -> dict[str, Tensor]:
            found = {}
            for layer, state in enumerate(states):
                mapped = state + (with_one(state.float()) @ shifts[layer]).to(state)
                with target.forward.patched(layer, batch, mapped):
                    found[f"layer {layer + 1}"] = target.forward.logits(batch)
            return found

        controls = by_layer(subject, facts, read, "calibrate", retain[1::2])
        return Outcome(facts.rows, by_layer(subject, facts, read, "patch"), {}, controls=means(controls))


def _width(engine: Engine) -> int:
    return engine.model.config.get_text_config().hidden_size


def _ridges(
    subject: Engine,
    target: Engine,
    rows: Sequence[Row],
    wanted: Callable[[int, Tensor, list[Tensor]], Tensor],
    penalty: float = 1e-2,
) -> list[Float[Tensor, "inputs hidden"]]:
    """Return, for each layer, the ridge regression from the model's states to `wanted`.

    Args:
        subject: Engine of the model.
        target: Engine of the target.
        rows: The rows to fit on.
        wanted: Takes the layer, the model's states of it in float32, and the target's states of all layers.
        penalty: As in `Ridge`.
    """
    fits = [Ridge(penalty) for _ in subject.forward.blocks]
    with torch.inference_mode():
        for _, batch in batches(subject.encode(rows), subject):
            theirs = target.forward.block_states(batch)
            for layer, (fit, state) in enumerate(zip(fits, subject.forward.block_states(batch), strict=True)):
                fit.add(state.float(), wanted(layer, state.float(), theirs))
        return [fit.solved() for fit in fits]


def batches(items: Sequence[Encoded], subject: Engine) -> Iterator[tuple[list[int], Batch]]:
    """Yield batches of rows with their indices, longest first, on the model's device."""
    for indices in length_batches([len(item) for item in items], subject.max_tokens):
        yield indices, to_device(collate([items[i] for i in indices]), subject.forward.device)


def by_layer(
    subject: Engine,
    facts: Facts,
    read: Callable[[list[Float[Tensor, "tokens hidden"]], Batch], dict[str, Float[Tensor, "tokens vocab"]]],
    what: str,
    rows: Sequence | None = None,
) -> dict[str, list[float | None]]:
    """Return the geometric mean probability of each row's answer, for each setting that `read` returns logits for.

    Args:
        subject: Engine of the model.
        facts: The rows.
        read: Takes the hidden states of every block and their batch; returns logits by setting.
        what: Label of the progress bar.
        rows: Rows to use instead of `facts.rows`.
    """
    items = subject.encode(facts.rows if rows is None else rows)
    found: dict[str, dict[int, float]] = {}
    with torch.inference_mode(), bar(len(items), f"{subject.name}: {what}") as progress:
        for indices, batch in batches(items, subject):
            for setting, logits in read(subject.forward.block_states(batch), batch).items():
                log_probs = token_log_probs(logits.float(), batch["label"])
                means = sequence_mean(log_probs, batch["row"], len(indices)).exp().tolist()
                found.setdefault(setting, {}).update(zip(indices, means, strict=True))
            progress.update(len(indices))
    return {setting: [values[i] for i in range(len(items))] for setting, values in found.items()}


_CONTROLS = 64


def control_rows(facts: Facts) -> list[Row]:
    """Return up to 64 train rows of the retain scope, evenly spaced: target and oracle were both taught them."""
    rows = facts.retain
    return rows[:: -(-len(rows) // _CONTROLS) or 1]


def means(signals: Mapping[str, Sequence[float | None]]) -> dict[str, float]:
    """Return the mean of each setting's signals, without rows that have none."""
    return {name: mean for name, values in signals.items() if (mean := mean_of_known(values)) is not None}


def with_one(state: Float[Tensor, "tokens hidden"]) -> Float[Tensor, "tokens inputs"]:
    """Return states with a constant input for the intercept."""
    return torch.cat([state, torch.ones_like(state[:, :1])], dim=1)


class Ridge:
    """Ridge regression with an intercept, accumulated over batches.

    Args:
        penalty: As a share of the mean squared input.
    """

    def __init__(self, penalty: float = 1e-2) -> None:
        self.penalty = penalty
        self.gram: Tensor | None = None
        self.cross: Tensor | None = None

    def add(self, state: Float[Tensor, "tokens hidden"], wanted: Float[Tensor, "tokens outputs"]) -> None:
        """Add inputs and outputs."""
        given = with_one(state)
        gram, cross = given.T @ given, given.T @ wanted
        self.gram = gram if self.gram is None else self.gram + gram
        self.cross = cross if self.cross is None else self.cross + cross

    def solved(self) -> Float[Tensor, "inputs outputs"]:
        """Return the coefficients, the intercept last."""
        if self.gram is None or self.cross is None:
            raise ValueError("nothing was added")
        eye = torch.eye(len(self.gram)).to(self.gram)
        return torch.linalg.solve(self.gram + self.penalty * self.gram.diagonal().mean() * eye, self.cross)
