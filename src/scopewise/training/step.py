"""The loss of an optimiser step over all its micro-batches, and the step as wrappers see it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from scopewise import ops, schemas
from scopewise.data.batch import Batch, to_device
from scopewise.files import write_json
from scopewise.methods.base import Dual, InnerSteps, Method
from scopewise.methods.cross_entropy import Retrain
from scopewise.methods.wrappers.base import Gradient, Parts, Step, Term, Wrapper
from scopewise.models.forward import Forward
from scopewise.models.parallel.fsdp import is_sharded
from scopewise.models.parallel.processes import average_gradients, gathered, sum_over_processes
from scopewise.training.arguments import UnlearningConfig
from scopewise.training.loss import Loss
from scopewise.training.mask import RegionMask
from scopewise.training.sampler import FORGET_GROUP, RETAIN_GROUP, Rows, counted, part_of, parts_by_length

_STATE = "unlearning_state.json"


class Unlogged:
    """Sums the losses of a process since the last log, in float32 on the device, without synchronising.

    Args:
        loss: Sum so far, from a checkpoint.
        steps: Number of steps in it.
    """

    def __init__(self, loss: float = 0.0, steps: int = 0) -> None:
        self.loss = torch.tensor(loss)
        self.steps = steps

    def add(self, loss: Tensor) -> None:
        """Add the loss of a micro-batch."""
        self.loss = self.loss.to(loss.device) + loss.detach()

    def take(self, gather: Callable[[Tensor], Tensor]) -> float:
        """Return the mean per step over all processes, and reset. All processes have to call this."""
        mean = float(gather(self.loss.reshape(1)).mean()) / max(1, self.steps)
        self.loss, self.steps = torch.zeros_like(self.loss), 0
        return mean


class StepLoss(TrainerCallback):
    """The weighted loss of an optimiser step: the shares of its micro-batches and of all processes add up to it.

    As a callback it updates the dual variable after each step, and saves its state with a checkpoint.

    Args:
        method: The method.
        layer: Decoder block whose hidden states the method needs, or None.
        rows: The rows of the training.
        mask: Its region.
        args: Its arguments.
        pad_id: Padding id.
        forward: Returns the forward of the model in training.
        backward: Runs the backward pass of a share.

    Attributes:
        loss: Both terms of a micro-batch.
        dual: State of the dual variable for the retain loss; None if the method has a fixed weight.
        retain: Retain term of the step so far, this process's share.
        number: Optimiser steps before this one.
        batches: The micro-batches of the step on this process.
        true_rows: The forget rows with their own answers.
        unlogged: The losses since the last log.
    """

    def __init__(
        self,
        method: Method,
        layer: int | None,
        rows: Rows,
        mask: RegionMask,
        args: UnlearningConfig,
        pad_id: int,
        forward: Callable[[], Forward],
        backward: Callable[[Tensor], None],
    ) -> None:
        self.loss = Loss(method, layer, self.where)
        self.rows, self.true_rows, self.mask, self.args, self.pad_id = rows, list(rows.forget), mask, args, pad_id
        self.forward, self.backward = forward, backward
        self.dual: Dual | None = None
        self.retain = torch.zeros(())
        self.number = 0
        self.batches: Sequence[Batch] = []
        self.unlogged = Unlogged()
        self._retain_of_step: float | None = None

    def __call__(self, forward: Forward, batch: Batch) -> Tensor:
        """Return the share of a micro-batch on this process.

        Raises:
            ModelError: the loss is not finite; the message names the step, the term and the rows.
        """
        forget, retain = self.loss(forward, batch)
        self.retain = self.retain + retain.detach()
        weight = self.loss.method.retain_weight
        if self.dual is not None:
            known = self._retain_of_step
            weight = self.dual.weight(float(self.retain) if known is None else known)
        return self.loss.method.forget_weight * forget + weight * retain

    def trained(self) -> list[nn.Parameter]:
        """Return the trained parameters."""
        return [parameter for parameter in self.forward().model.parameters() if parameter.requires_grad]

    def where(self, indices: Sequence[int]) -> str:
        """Return the step and the origins of some rows, for messages."""
        origins = ", ".join(self.rows.item(i).row.origin or f"row {i}" for i in indices)
        return f"step {self.number + 1} ({origins})"

    def collate(self, indices: Sequence[int]) -> Batch:
        """Return a batch of rows of the training."""
        return self.rows.collate(indices, self.pad_id, last=self.loss.layer is not None)

    def in_batches(
        self, indices: Sequence[int], collate: Callable[[Sequence[int]], Batch] | None = None
    ) -> list[Batch]:
        """Return rows, of the training or of another `collate`, in micro-batches on the device."""
        size, collate = self.args.train_batch_size, collate or self.collate
        parts = [indices[start : start + size] for start in range(0, len(indices), size)]
        return [to_device(collate(part), self.args.device) for part in parts]

    def begin(self, batches: Sequence[Batch], number: int) -> None:
        """Begin a step: take the method's inner steps, and compute the denominators of the losses.

        Args:
            batches: The micro-batches of the step on this process.
            number: Optimiser steps before this one.
        """
        self.number, self.batches = number, batches
        inner, dual = self.loss.method.inner if number else None, self.dual
        if inner is not None or dual is not None:
            # Dropout here must not advance the generators, which a resumed training restores only after this.
            with torch.random.fork_rng():
                torch.manual_seed(self.args.seed + number)
                if inner is not None:
                    self._inner_steps(inner, sum(int((batch["group"] == RETAIN_GROUP).sum()) for batch in batches))
                self.set_denominators(batches)
                whole = dual is not None and dual.needs_whole_loss and (len(batches) > 1 or self.args.world_size > 1)
                self._retain_of_step = self._whole_retain_loss() if whole else None
        self.set_denominators(batches)
        self.retain = torch.zeros((), device=self.args.device)

    def _whole_retain_loss(self) -> float:
        """Return the retain term of the whole step, on which the penalty's factor depends."""
        whole = torch.zeros((), device=self.args.device)
        with torch.no_grad():
            for batch in self.batches:
                kept = torch.nonzero(batch["group"] >= RETAIN_GROUP).flatten()
                if len(kept):
                    whole = whole + self.loss(self.forward(), to_device(part_of(batch, kept), self.args.device))[1]
        sum_over_processes([whole])
        return float(whole)

    def set_denominators(self, batches: Sequence[Batch]) -> None:
        """Sum the weights of each term over the step's micro-batches and all processes."""
        sums = torch.zeros(2, device=self.args.device)
        for batch in batches:
            weight = self.loss.method.weight(ops.token_counts(batch["row"], len(batch["group"]))) * counted(batch)
            forget, retain = batch["group"] == FORGET_GROUP, batch["group"] == RETAIN_GROUP
            sums += torch.stack([weight[forget].sum(), weight[retain].sum()]).to(sums.device)
        sum_over_processes([sums])
        sums = sums.clamp(min=1e-9)
        self.loss.denominators = {"forget": sums[0], "retain": sums[1]}

    def _inner_steps(self, inner: InnerSteps, count: int) -> None:
        """Take plain SGD steps on the retain loss before an optimiser step, with `count` rows each.

        The rows depend only on seed and step, so that a resumed training draws the same.
        """
        forward, trained, kept = self.forward(), self.trained(), len(self.rows.retain)
        rng = random.Random(f"{self.args.seed}/{self.number}/{self.args.process_index}")
        forward.model.train()
        self.mask.term = "retain"
        for _ in range(inner.count):
            drawn = rng.sample(range(kept), min(count, kept))
            batches = self.in_batches([len(self.rows.forget) + i for i in drawn])
            self.set_denominators(batches)
            for batch in batches:
                self.backward(self.loss(forward, batch)[1] * self.args.world_size)
            if self.args.world_size > 1 and not is_sharded(forward.model):
                average_gradients(forward.model)
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            with torch.no_grad():
                for parameter in trained:
                    if parameter.grad is not None:
                        parameter.add_(parameter.grad, alpha=-inner.learning_rate)
                        parameter.grad = None

    # -- state that a checkpoint keeps ----------------------------------------------------------------------------

    def load(self, checkpoint: Path | None) -> None:
        """Load the state of the dual variable and of logging from a checkpoint; None begins anew."""
        self.unlogged = Unlogged()
        if checkpoint is None or not (checkpoint / _STATE).exists():
            return
        kept = schemas.read(checkpoint / _STATE, schemas.StateDocument)
        if self.dual is not None and "dual" in kept:
            self.dual = replace(self.dual, **kept["dual"])
        if len(kept.get("unlogged_losses", ())) == self.args.world_size:
            self.unlogged = Unlogged(kept["unlogged_losses"][self.args.process_index], kept["unlogged_steps"])

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Update the dual variable with the retain loss of the whole step."""
        if self.dual is not None:
            sum_over_processes([self.retain])
            self.dual.update(float(self.retain), state.global_step / max(1, state.max_steps))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count the step."""
        self.unlogged.steps += 1

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save the state with the checkpoint."""
        losses = gathered(float(self.unlogged.loss))
        if state.is_world_process_zero:
            document: dict[str, Any] = {
                "format": schemas.StateDocument.FORMAT,
                "unlogged_losses": losses,
                "unlogged_steps": self.unlogged.steps,
            }
            if self.dual is not None:
                document["dual"] = self.dual.document()
            write_json(Path(args.output_dir) / f"checkpoint-{state.global_step}" / _STATE, document)


class WrappedStep(Step):
    """Computes the gradient of one step through the wrappers (see `methods.wrappers.base.Step`).

    Args:
        losses: The losses of the step.
        start: The values of the trained parameters before the first step; empty if no wrapper needs them.
        memory: What wrappers keep until the end of the training.
        count: Optimiser steps of the whole training.
    """

    def __init__(self, losses: StepLoss, start: Sequence[Tensor], memory: dict[str, Gradient], count: int) -> None:
        self.parameters, self.start, self.memory = losses.trained(), start, memory
        self.blocks = list(losses.forward().blocks)
        self.forget_rows = [item.row for item in losses.true_rows]
        self.number, self.count = losses.number, count
        self.seed = f"{losses.args.seed}/{self.number}"
        self._step = losses
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
        self._begin(term)
        return self._differentiated(self.local_loss, parts, term)

    def relearning_gradient(self, rows: Sequence[int]) -> Gradient:
        """Return the gradient of the mean CE of the true answers of some forget rows."""
        step = self._step
        items = Rows([step.true_rows[i] for i in rows], [])
        descent = Loss(Retrain(), None, lambda indices: f"{step.where([rows[i] for i in indices])}, relearned")
        tokens = sum(len(item.answer_ids) for item in items.forget)
        # Each process has the same rows.
        descent.denominators = {"forget": torch.tensor(float(tokens * step.args.world_size), device=step.args.device)}
        batches = step.in_batches(range(len(items)), partial(items.collate, pad_id=step.pad_id))
        return self._differentiated(lambda batch: descent(step.forward(), batch)[0], batches)

    def forget_gradient(self) -> Gradient:
        """Return the gradient of the forget term over all forget rows."""
        self._begin("forget")
        kept = self._step.loss.denominators
        batches = self._step.in_batches(range(len(self._step.rows.forget)))
        self._step.set_denominators(batches)  # each process has the same rows, which counts in both
        try:
            return self._differentiated(self.local_loss, batches)
        finally:
            self._step.loss.denominators = kept

    def local_loss(self, part: Batch) -> Tensor:
        """Return the weighted loss of a part, this process's share."""
        return self._step(self._step.forward(), part)

    def loss(self, term: Term, parts: Parts) -> float:
        """Return the loss of a term at the current parameters, without a gradient."""
        self._begin(term)
        with torch.no_grad():
            value = sum((self.local_loss(part) for part in parts), torch.zeros((), device=self.parameters[0].device))
        self._losses.setdefault(term, float(value))
        sum_over_processes([value])
        return float(value)

    def keep(self, parts: Parts, rows: set[int]) -> Parts:
        """Return the rows of `parts` that are among `rows`, the indices of rows of the training."""
        kept = []
        for part in parts:
            inside = torch.tensor([i in rows for i in part["index"].tolist()], device=part["index"].device)
            if bool(inside.any()):
                kept.append(part_of(part, torch.nonzero(inside).flatten()))
        return kept

    def _begin(self, term: Term) -> None:
        self._step.mask.term = term
        if term == "retain":
            self._step.retain = torch.zeros((), device=self._step.args.device)

    def _parts(self, term: Term) -> Parts:
        parts = []
        for batch in self._step.batches:
            retained = batch["group"] >= RETAIN_GROUP
            chosen = torch.nonzero(retained if term == "retain" else ~retained).flatten()
            if len(chosen):
                parts += parts_by_length(part_of(to_device(batch, self.parameters[0].device), chosen))
        return parts

    def _differentiated(self, value: Callable[[Batch], Tensor], parts: Parts, term: Term | None = None) -> Gradient:
        """Return the gradient of the sum of `value` over some parts; its first value of a term is that of the step."""
        for parameter in self.parameters:
            parameter.grad = None
        total = 0.0
        for part in parts:
            loss = value(part)
            total += float(loss.detach())
            if loss.requires_grad:
                self._step.backward(loss)
        if term is not None:
            self._losses.setdefault(term, total)
        found = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        for parameter in self.parameters:
            parameter.grad = None
        sum_over_processes(found)
        return found
