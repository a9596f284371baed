"""Hidden states at the positions that predict the answers, for white-box attacks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from scopewise.attacks.base import Facts
from scopewise.bars import bar
from scopewise.data.batch import Batch, collate, length_batches, to_device
from scopewise.data.prompt import Encoded
from scopewise.data.rows import Row
from scopewise.models.engine import Engine
from scopewise.ops import sequence_mean, token_log_probs


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
    known = {name: [v for v in values if v is not None] for name, values in signals.items()}
    return {name: math.fsum(values) / len(values) for name, values in known.items() if values}


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
