"""An optimiser step as wrappers see it: its rows, and losses and gradients over them at any parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import Tensor, nn

from scopewise.data.batch import Batch, to_device
from scopewise.data.rows import Row
from scopewise.methods.wrappers.base import Gradient, Parts, Step, Term, Wrapper
from scopewise.training.sampler import RETAIN_GROUP, part_of, parts_by_length


class WrappedStep(Step):
    """Computes the gradient of one step through the wrappers (see `methods.wrappers.base.Step`).

    Args:
        parameters: The trained parameters.
        start: Their values before the first step; empty if no wrapper needs them.
        blocks: The decoder blocks.
        batches: The micro-batches of the step on this process.
        forget_rows: The forget rows of the training.
        at: Optimiser steps before this one, and of the whole training.
        seed: Of the training, and of this process.
        value: Returns the weighted loss of a batch, this process's share.
        relearning: Returns the share of each batch in the mean CE of the true answers of some forget rows.
        forgetting: Opens a context with the share of each batch in the forget term over all forget rows.
        memory: What wrappers keep until the end of the training.
        begins: Called before a term is evaluated.
        backward: Runs the backward pass of a share.
        sum_up: Sums tensors over processes, in place.
    """

    def __init__(
        self,
        *,
        parameters: Sequence[nn.Parameter],
        start: Sequence[Tensor],
        blocks: Sequence[nn.Module],
        batches: Sequence[Batch],
        forget_rows: Sequence[Row],
        at: tuple[int, int],
        seed: int,
        value: Callable[[Batch], Tensor],
        relearning: Callable[[Sequence[int]], Sequence[Callable[[], Tensor]]],
        forgetting: Callable[[], AbstractContextManager[Sequence[Callable[[], Tensor]]]],
        memory: dict[str, Gradient],
        begins: Callable[[Term], None],
        backward: Callable[[Tensor], None],
        sum_up: Callable[[Sequence[Tensor]], None],
    ) -> None:
        self.parameters, self.start, self.blocks, self.forget_rows = parameters, start, blocks, forget_rows
        self.number, self.count = at
        self.seed = f"{seed}/{self.number}"
        self._value = value
        self._batches = batches
        self._forgetting, self.memory = forgetting, memory
        self._relearning, self._begins, self._backward, self._sum_up = relearning, begins, backward, sum_up
        self._losses: dict[Term, float] = {}

    def take(self, wrappers: Sequence[Wrapper]) -> float:
        """Set `grad` of the parameters; return the loss of the step at its parameters (this process's share)."""
        found = {}
        for term in ("forget", "retain"):
            inner = partial(self.gradient, term)
            for wrapper in wrappers:
                inner = partial(wrapper.gradient, self, term, inner=inner)
            found[term] = inner(self._parts(term))
        forget, retain = found["forget"], found["retain"]
        for wrapper in wrappers:
            forget, retain = wrapper.combine(self, forget, retain)
        for parameter, a, b in zip(self.parameters, forget, retain, strict=True):
            parameter.grad = a + b
        return sum(self._losses.values())

    def gradient(self, term: Term, parts: Parts) -> Gradient:
        """Return the gradient of a term over some rows at the current parameters."""
        self._begins(term)
        return self._differentiated([partial(self.local_loss, part) for part in parts], term)

    def relearning_gradient(self, rows: Sequence[int]) -> Gradient:
        """Return the gradient of the mean CE of the true answers of some forget rows."""
        return self._differentiated(self._relearning(rows))

    def local_loss(self, part: Batch) -> Tensor:
        """Return the weighted loss of a part, this process's share."""
        return self._value(part)

    def forget_gradient(self) -> Gradient:
        """Return the gradient of the forget term over all forget rows."""
        self._begins("forget")
        with self._forgetting() as values:
            return self._differentiated(values)

    def loss(self, term: Term, parts: Parts) -> float:
        """Return the loss of a term at the current parameters, without a gradient."""
        self._begins(term)
        with torch.no_grad():
            value = sum((self.local_loss(part) for part in parts), torch.zeros((), device=self.parameters[0].device))
        self._losses.setdefault(term, float(value))
        self._sum_up([value])
        return float(value)

    def keep(self, parts: Parts, rows: set[int]) -> Parts:
        """Return the rows of `parts` that are among `rows`, the indices of rows of the training."""
        kept = []
        for part in parts:
            inside = torch.tensor([i in rows for i in part["index"].tolist()], device=part["index"].device)
            if bool(inside.any()):
                kept.append(part_of(part, torch.nonzero(inside).flatten()))
        return kept

    def _parts(self, term: Term) -> Parts:
        parts = []
        for batch in self._batches:
            retained = batch["group"] >= RETAIN_GROUP
            chosen = torch.nonzero(retained if term == "retain" else ~retained).flatten()
            if len(chosen):
                parts += parts_by_length(part_of(to_device(batch, self.parameters[0].device), chosen))
        return parts

    def _differentiated(self, values: Sequence[Callable[[], Tensor]], term: Term | None = None) -> Gradient:
        for parameter in self.parameters:
            parameter.grad = None
        total = 0.0
        for value in values:
            loss = value()
            total += float(loss.detach())
            if loss.requires_grad:
                self._backward(loss)
        if term is not None:
            self._losses.setdefault(term, total)
        found = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        for parameter in self.parameters:
            parameter.grad = None
        self._sum_up(found)
        return found
