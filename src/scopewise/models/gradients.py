"""Gradients over rows, for the matrices that a region may choose from; the model is not changed.

With several processes, each forwards a share of the batches, and all get the same sums.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from scopewise.bars import bar
from scopewise.data.batch import Batch, Unit, collate, collate_units, length_batches, to_device
from scopewise.data.prompt import Encoded
from scopewise.errors import ConfigError
from scopewise.models.architecture import evaluation_mode, hooks, kept_flags
from scopewise.models.forward import Forward, mean_nll
from scopewise.models.matrices import localizable, matrices
from scopewise.models.parallel.fsdp import full_tensor, is_sharded
from scopewise.models.parallel.processes import is_mine, processes, sum_over_processes
from scopewise.models.score import Pair
from scopewise.ops import sequence_mean

CPU_TOKENS = 384
"""Padded tokens of a batch on a CPU. More are no faster, and 135 million parameters keep 2 MB for each until backward."""
Gradients = dict[str, Tensor]


def mean_gradients(
    forward: Forward,
    items: Sequence[Encoded],
    max_tokens: int,
    what: str,
    *,
    repeats: int = 0,
    corrupt: str = "labels",
    seed: int = 0,
    only: Collection[str] | None = None,
) -> Gradients:
    """Return the gradient of the loss on each matrix, averaged over rows, in float32.

    The loss of a row is the mean CE of its answer in nats per token; rows count the same.

    Args:
        forward: Of a causal LM; evaluation mode is used, since dropout would only add noise to a mean.
        items: The rows.
        max_tokens: Padded tokens per batch.
        what: The rows' name, for the progress bar.
        repeats: 0 takes the true answers; otherwise the number of random relabellings to average.
        corrupt: `labels` draws every label anew and leaves the inputs: the repeats share one forward and one backward,
            exactly, since the loss is linear in the labels. `inputs` replaces half of the answer tokens, drawn with
            replacement, in inputs and labels alike, and takes a pass for each repeat.
        seed: Of the relabellings.
        only: Names of the matrices whose gradient is wanted; the backward pass stops at the lowest. None takes all.
    """
    vocab_size = forward.vocab_size
    generator = torch.Generator().manual_seed(seed)
    inputs = bool(repeats) and corrupt == "inputs"
    # Losses in chunks give the head no gradient; all groups of matrices must be computed in the same way.
    head = any(p is forward.head.weight for p in matrices(forward.model).values())
    passes = repeats if inputs else 1
    # FSDP2 averages the gradients of sharded parameters over the processes.
    scale = processes().num_processes if is_sharded(forward.model) else 1
    with _gradients_of(forward, only) as gradients:
        progress = bar(passes * len(items), f"localize: gradients, {what}")
        for _ in range(passes):
            given = [_corrupted(item, vocab_size, generator) for item in items] if inputs else items
            for number, (batch, counted) in enumerate(batches_of_all(forward, given, max_tokens)):
                labels = batch["label"].unsqueeze(0)
                if repeats and not inputs:  # in every process, so that all draw the same
                    drawn = torch.randint(vocab_size, (repeats, labels.shape[1]), generator=generator)
                    labels = drawn.to(labels.device)
                rows = len(batch["input_ids"])
                progress.update(counted * rows)
                if not is_mine(number):
                    continue
                nll = mean_nll(forward.logits(batch), labels) if head else forward.nll(batch, labels, packed=True)
                if nll.requires_grad:  # false where the model never calls the wanted layers
                    (counted * scale * sequence_mean(nll, batch["row"], rows).sum() / (passes * len(items))).backward()
        progress.close()
        found = {name: full_tensor(gradient).clone() for name, gradient in gradients().items()}
        if not is_sharded(forward.model):
            sum_over_processes(list(found.values()))
        return found


def mean_squared_gradients(forward: Forward, items: Sequence[Encoded], max_tokens: int, what: str) -> Gradients:
    """Return the mean over rows of the squared gradient of each row's CE on its true answer: the diagonal Fisher.

    Squares are taken per row, however rows are batched. A linear layer's gradient for a row is the product of its outputs'
    gradients with its inputs, so one backward of a whole batch gives the gradient of each row. This is not possible for
    experts, which see some tokens of all rows, and for layers that are called twice or with packed rows: these take one
    backward per row. Computed in float32.

    Raises:
        ConfigError: there are such matrices in a model that is sharded over processes.
    """
    found = localizable(forward.model)
    totals = {name: torch.zeros(m.parameter.shape, device=m.parameter.device) for name, m in found.items()}
    seen = RowCalls()

    def watch(name: str, _: nn.Module, args: tuple[Tensor, ...], output: Any) -> None:
        inputs = args[0].detach()
        # A router returns more than a product.
        if not isinstance(output, Tensor) or not output.requires_grad or not seen.in_rows(name, inputs):
            return

        def add(gradient: Tensor) -> None:
            # One row at a time: a [rows out in] tensor would be the largest of all.
            for given, wanted in zip(inputs.float(), gradient.float(), strict=True):
                product = wanted.T @ given
                totals[name] += (product if found[name].inputs == -1 else product.T).square() / len(items)

        output.register_hook(add)

    layers = ((n, m.layer) for n, m in found.items() if m.layer is not None)
    with _gradients_of(forward), hooks(layer.register_forward_hook(partial(watch, n)) for n, layer in layers):
        progress = bar(len(items), f"localize: squared gradients, {what}")
        try:
            for number, (batch, counted) in enumerate(batches_of_all(forward, items, max_tokens)):
                rows = len(batch["input_ids"])
                progress.update(counted * rows)
                if not is_mine(number):
                    continue
                seen.begin(batch)
                nll = forward.nll(batch)
                # Summed over rows, so that each token gets its own row's undivided gradient.
                (counted * sequence_mean(nll, batch["row"], rows).sum()).backward()
        finally:
            progress.close()
    rest = [name for name in found if name not in seen.whole]
    if rest:
        _squares_by_row(forward, items, rest, totals, what)
    sum_over_processes(list(totals.values()))
    return totals


def _squares_by_row(
    forward: Forward, items: Sequence[Encoded], names: Sequence[str], totals: Gradients, what: str
) -> None:
    """Add to `totals` the mean squared gradient of some matrices, with one backward per row."""
    if is_sharded(forward.model):
        raise ConfigError(
            f"localize: squared gradients of {names[0]} need a backward pass per row, which is not possible with a "
            "sharded model; use ddp.yaml, or another localizer"
        )
    for name in names:
        totals[name].zero_()
    with _gradients_of(forward, names):
        wanted = [matrices(forward.model)[name] for name in names]
        progress = bar(len(items), f"localize: squared gradients row by row, {what}")
        for number, (batch, _) in enumerate(batches_of_all(forward, items, 1)):
            progress.update(1)
            if is_mine(number):
                loss = forward.nll(batch).mean()
                if not loss.requires_grad:  # false where the model never calls the layers
                    continue
                gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
                for name, gradient in zip(names, gradients, strict=True):
                    if gradient is not None:  # None for an expert without tokens
                        totals[name] += gradient.float().square() / len(items)
        progress.close()


class RowCalls:
    """Records which layers are called exactly once in every forward, with the rows of the batch in their first dimension.

    Attributes:
        whole: Names of the layers for which this holds so far.
    """

    def __init__(self) -> None:
        self.whole: set[str] = set()
        self._odd: set[str] = set()
        self._called: set[str] = set()
        self._shape = torch.Size()

    def begin(self, batch: Batch) -> None:
        """Begin a forward."""
        self._odd |= self.whole - self._called
        self.whole -= self._odd
        self._called, self._shape = set(), batch["input_ids"].shape

    def in_rows(self, name: str, inputs: Tensor) -> bool:
        """Return whether this is the layer's first call in a forward, and its input is [rows seq features]."""
        if name in self._called or inputs.dim() != 3 or inputs.shape[:2] != self._shape:
            self._odd.add(name)
        self._called.add(name)
        if name in self._odd:
            self.whole.discard(name)
            return False
        self.whole.add(name)
        return True


def gradient_norms(forward: Forward, pairs: Sequence[Pair], description: str) -> dict[Pair, float]:
    """Return, for each pair, the mean over all parameter tensors of the norm of the gradient of the answer's mean NLL."""
    found: dict[Pair, float] = {}
    parameters = list(forward.model.parameters())
    with unchanged(forward.model), bar(len(set(pairs)), f"{description}: gradient norms") as progress:
        for parameter in parameters:
            parameter.requires_grad_(parameter.is_floating_point())
        for pair in dict.fromkeys(pairs):
            for parameter in parameters:
                parameter.grad = None
            batch = to_device(collate_units([Unit(pair[0], (pair[1],))]), forward.device)
            forward.nll(batch).mean().backward()
            norms = [float(full_tensor(p.grad).float().norm()) for p in parameters if p.grad is not None]
            found[pair] = sum(norms) / len(norms)
            progress.update(1)
    return found


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Set evaluation mode; restore mode, gradients and what requires one when the context closes."""
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    try:
        with evaluation_mode(model), kept_flags(model):
            yield
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient


def batches_of_all(
    forward: Forward, items: Sequence[Encoded], max_tokens: int, *, last: bool = False
) -> Iterator[tuple[Batch, int]]:
    """Yield each batch with weight 1; if sharded, repeat the last with weight 0 until all processes have as many.

    On a CPU a batch has at most `CPU_TOKENS`.
    """
    if forward.device.type == "cpu":
        max_tokens = min(max_tokens, CPU_TOKENS)
    batches = list(length_batches([len(item) for item in items], max_tokens))
    fill = -len(batches) % processes().num_processes if is_sharded(forward.model) else 0
    for indices, counted in [(indices, 1) for indices in batches] + [(batches[-1], 0)] * fill:
        yield to_device(collate([items[i] for i in indices], last=last), forward.device), counted


def _corrupted(item: Encoded, vocab_size: int, generator: torch.Generator) -> Encoded:
    """Replace half as many answer tokens as there are, at positions drawn with replacement."""
    answer = list(item.answer_ids)
    for _ in range(len(answer) // 2):
        place = int(torch.randint(len(answer), (), generator=generator))
        answer[place] = int(torch.randint(vocab_size, (), generator=generator))
    return replace(item, answer_ids=tuple(answer))


@contextmanager
def _gradients_of(forward: Forward, only: Collection[str] | None = None) -> Iterator:
    """Collect gradients of the localizable matrices (or some of them) alone, in float32; leave the model as it was."""
    targets = {name: p for name, p in matrices(forward.model).items() if only is None or name in only}
    wanted = {id(p) for p in targets.values()}
    totals: Gradients = {}

    def accumulate(name: str, p: Tensor) -> None:
        assert p.grad is not None
        totals[name] = totals[name].add_(p.grad) if name in totals else p.grad.float()
        p.grad = None

    def collected() -> Gradients:
        return {
            name: totals[name] if name in totals else (torch.zeros_like(p) if p.grad is None else p.grad)
            for name, p in targets.items()
        }

    with unchanged(forward.model):
        for parameter in forward.model.parameters():
            parameter.grad = None
            parameter.requires_grad_(id(parameter) in wanted)
        # 16 bits would round a sum over many batches.
        small = ((name, p) for name, p in targets.items() if p.dtype not in (torch.float32, torch.float64))
        summed = (p.register_post_accumulate_grad_hook(partial(accumulate, name)) for name, p in small)
        with hooks(summed), forward.kernels.training(forward.model):
            yield collected
