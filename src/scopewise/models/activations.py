"""Mean activations over rows, for the matrices that a region may choose from; the model is left as it was."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from scopewise.bars import bar
from scopewise.data.prompt import Encoded
from scopewise.errors import ConfigError
from scopewise.models.architecture import hooks
from scopewise.models.experts import Stack, expert_inputs
from scopewise.models.forward import Forward, states_at
from scopewise.models.gradients import RowCalls, batches_of_all, unchanged
from scopewise.models.matrices import Matrix, localizable
from scopewise.models.parallel.fsdp import is_sharded
from scopewise.models.parallel.processes import is_mine, processes, sum_over_processes


def mean_activations(forward: Forward, items: Sequence[Encoded], max_tokens: int, what: str) -> dict[str, Tensor]:
    """Return the mean absolute input of each linear layer at the answer tokens, per input feature, in float32.

    For a layer that sees only some tokens, such as an expert, the others count as 0; several calls with the same token add
    up.

    Returns:
        Matrix → [inputs]; of experts in one tensor [experts inputs]; of the first matrix of an adapter on such a tensor, whose
        rows belong to experts, [rows inputs], and of its second, whose columns do, [inputs].

    Raises:
        ConfigError: the inputs of some experts' matrices cannot be observed.
    """
    found = localizable(forward.model)
    layers: dict[str, Any] = {name: matrix.layer for name, matrix in found.items() if matrix.layer is not None}
    totals = {
        name: torch.zeros(_of_inputs(m), device=m.parameter.device, dtype=_SUMS[m.parameter.device.type])
        for name, m in found.items()
    }
    tokens = sum(len(item.answer_ids) for item in items)
    seen = RowCalls()
    read: list[Tensor] = []
    counts: list[int] = []

    def add(name: str, _: nn.Module, args: tuple[Tensor, ...]) -> None:
        if seen.in_rows(name, args[0]):
            inputs = states_at(args[0], read[-1])
            totals[name] += counts[-1] * inputs.float().abs().sum(0) / tokens

    with unchanged(forward.model), torch.no_grad(), bar(len(items), f"localize: activations, {what}") as progress:
        with _hooks(layers, add):
            for number, (batch, counted) in enumerate(batches_of_all(forward, items, max_tokens, last=True)):
                if is_mine(number):
                    seen.begin(batch)
                    read.append(batch["position"] + 1)  # where the answer tokens are the input
                    counts.append(counted)
                    forward.logits(batch)
                progress.update(counted * len(batch["input_ids"]))
        rest = {name: matrix for name, matrix in found.items() if name not in seen.whole}
        if rest:
            _activations_by_row(forward, items, rest, totals, tokens)
    sum_over_processes(list(totals.values()))
    return {name: total.float() for name, total in totals.items()}


_SUMS: defaultdict[str, torch.dtype] = defaultdict(lambda: torch.float64, mps=torch.float32)
"""Dtype for sums of many activations, by device type."""


def _activations_by_row(
    forward: Forward, items: Sequence[Encoded], found: Mapping[str, Matrix], totals: dict[str, Tensor], tokens: int
) -> None:
    """Add to `totals` the mean absolute inputs of layers in whose calls the tokens cannot be identified.

    Under causal attention, the states of a prompt do not depend on what follows. So a layer's inputs for the answer are
    those for the whole row minus those for the prompt, however the layer is called.
    """
    for name in found:
        totals[name].zero_()
    sign = 1.0
    layers = {name: matrix.layer for name, matrix in found.items() if matrix.layer is not None}
    by_stack: dict[tuple[nn.Module, str], list[str]] = {}
    for name, matrix in found.items():
        if matrix.stack is not None:
            by_stack.setdefault((matrix.stack.owner, matrix.stack.attribute), []).append(name)
    stacks = {key: found[names[0]].stack for key, names in by_stack.items()}
    met: set[str] = set()

    def add(name: str, _: nn.Module, args: tuple[Tensor, ...]) -> None:
        inputs = args[0].reshape(-1, args[0].shape[-1])
        totals[name] += sign * inputs.to(totals[name].dtype).abs().sum(0) / tokens

    def add_expert(stack: Stack, expert: int, inputs: Tensor) -> None:
        for name in by_stack[stack.owner, stack.attribute]:
            matrix, total = found[name], totals[name]
            met.add(name)
            if matrix.parameter.dim() == 3:
                total[expert] += sign * inputs.to(total.dtype).abs().sum(0) / tokens
            elif matrix.before is None:  # rank after rank of one expert, then of the next
                rows = total.view(stack.experts, -1, total.shape[-1])
                rows[expert] += sign * inputs.to(total.dtype).abs().sum(0) / tokens
            else:  # expert after expert of one rank, then of the next
                first = matrix.before.detach().view(stack.experts, -1, matrix.before.shape[-1])[expert]
                between = inputs.float() @ first.float().T
                total.view(-1, stack.experts)[:, expert] += sign * between.to(total.dtype).abs().sum(0) / tokens

    watched = [stack for stack in stacks.values() if stack is not None]
    with _hooks(layers, add), expert_inputs(forward.model, watched, add_expert) if watched else nullcontext():
        for number, item in enumerate(items):
            if is_sharded(forward.model) or is_mine(number):
                # Sharded: all processes run all forwards, and each counts its share.
                share = processes().num_processes if is_sharded(forward.model) else 1
                for sign, ids in ((1.0 / share, item.prompt_ids + item.answer_ids), (-1.0 / share, item.prompt_ids)):  # noqa: B007
                    with forward.autocast():
                        forward.model(input_ids=torch.tensor([ids], device=forward.device), use_cache=False)

    unseen = [name for name, matrix in found.items() if matrix.layer is None and name not in met]
    if unseen and any(map(is_mine, range(len(items)))):
        raise ConfigError(
            f"localizer activation_ratio: the inputs of the experts in {unseen[0]} and {len(unseen) - 1} other "
            "matrices cannot be traced in this model; use gradient, weight_attribution, grail or fisher_ratio"
        )


def _of_inputs(matrix: Matrix) -> tuple[int, ...]:
    """Return the shape of the activations of a matrix, as `mean_activations` gives them."""
    shape = matrix.parameter.shape
    if matrix.stack is None or matrix.before is not None:  # without a stack it will be refused, if no layer shows it
        return (shape[matrix.inputs],)
    return (shape[0], shape[matrix.inputs])


@contextmanager
def _hooks(layers: Mapping[str, Any], see: Callable[..., None]) -> Iterator[None]:
    """Call `see` with the name and inputs of each call of some layers while the context is open."""
    with hooks(layer.register_forward_pre_hook(partial(see, name)) for name, layer in layers.items()):
        yield
