"""Gradients of a loss on rows with respect to the matrices a region may choose from; the model is left as it was.

Under several processes each forwards a share of the batches, and all get the same sums.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from scopewise.bars import bar
from scopewise.data.batch import Batch, Unit, collate, collate_units, length_batches
from scopewise.data.prompt import Encoded
from scopewise.errors import ConfigError
from scopewise.models.active import active_adapter
from scopewise.models.forward import answer_logits, device_of, output_embeddings, to_device
from scopewise.models.fused import fused
from scopewise.models.head import answer_nll, mean_nll
from scopewise.models.processes import is_mine, processes, sum_over_processes
from scopewise.models.score import Pair
from scopewise.models.sharded import is_spread, whole
from scopewise.ops import sequence_mean
from scopewise.region import module_of, parameter_name

Gradients = dict[str, Tensor]


def matrices(model: nn.Module) -> Mapping[str, nn.Parameter]:
    """Return the matrices a region may choose from, by `parameter_name`, in the model's order.

    With an adapter: the A and B matrices of LoRA. Without: the weights of linear layers but the head (embeddings, head,
    norms and biases belong to no module of the paper, and a region never changes them).
    """
    return {name: module.weight for name, module in linear_modules(model).items()}


def linear_modules(model: nn.Module) -> Mapping[str, Any]:
    """Return the linear layers that hold the `matrices`, under the same names."""
    adapted, adapter = isinstance(model, PeftModel), active_adapter(model)
    head = output_embeddings(model)
    found = {
        parameter_name(f"{name}.weight", adapter): module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and (name.endswith((f".lora_A.{adapter}", f".lora_B.{adapter}")) if adapted else module is not head)
    }
    if not found:
        raise ConfigError(
            "localize: this model has no linear layer and no LoRA matrix to choose from; "
            "name its layers in lora.target_modules"
        )
    return found


def gradient_groups(model: nn.Module, gigabytes: float | None) -> list[list[str]]:
    """Return the names of the matrices in groups, of which two float32 gradients (forget and retain) fit a memory.

    Modules stay whole, and neighbours stay together, so that each group's backward stops as high up as it can.

    Args:
        model: The model.
        gigabytes: The memory, in 10⁹ bytes. None: half of what is free on the accelerator; on the CPU one group.
    """
    found = matrices(model)
    device = device_of(model)
    if gigabytes is None and device.type == "cuda":
        gigabytes = torch.cuda.mem_get_info(device)[0] / 2e9
    modules: dict[str, list[str]] = {}
    for name in found:
        modules.setdefault(module_of(name), []).append(name)
    groups: list[list[str]] = [[]]
    used = 0.0
    for names in modules.values():
        size = sum(2 * 4 * found[name].numel() for name in names) / 1e9
        if groups[-1] and gigabytes is not None and used + size > gigabytes:
            groups.append([])
            used = 0.0
        groups[-1] += names
        used += size
    return groups


def mean_gradients(
    model: nn.Module,
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
        model: A causal LM; evaluation mode is used, since dropout would only add noise to a mean.
        items: The rows.
        max_tokens: Padded tokens per batch.
        what: The rows' name, for the progress bar.
        repeats: 0 takes the true answers; else so many random relabellings, averaged.
        corrupt: `labels` draws every label anew and leaves the inputs: the repeats share one forward and one backward,
            exactly, since the loss is linear in the labels. `inputs` replaces half of the answer tokens, drawn with
            replacement, in inputs and labels alike, and takes a pass for each repeat.
        seed: Of the relabellings.
        only: Names of the matrices whose gradient is wanted; the backward pass stops at the lowest. None takes all.
    """
    vocab_size = int(output_embeddings(model).weight.shape[0])  # type: ignore
    generator = torch.Generator().manual_seed(seed)
    inputs = bool(repeats) and corrupt == "inputs"
    # Where the head is one of the matrices its logits are there anyway, and for every group of matrices alike.
    head = any(p is output_embeddings(model).weight for p in matrices(model).values())
    passes = repeats if inputs else 1
    # The gradients of what is spread are averaged over the processes as they come.
    scale = processes().num_processes if is_spread(model) else 1
    with _gradients_of(model, only) as gradients:
        progress = bar(passes * len(items), f"localize: gradients, {what}")
        for _ in range(passes):
            given = [_corrupted(item, vocab_size, generator) for item in items] if inputs else items
            for number, (batch, counted) in enumerate(_batches(model, given, max_tokens)):
                labels = batch["label"].unsqueeze(0)
                if repeats and not inputs:  # whoever forwards the batch: every process draws the same
                    drawn = torch.randint(vocab_size, (repeats, labels.shape[1]), generator=generator)
                    labels = drawn.to(labels.device)
                rows = len(batch["input_ids"])
                progress.update(counted * rows)
                if not is_mine(number):
                    continue
                nll = (
                    mean_nll(answer_logits(model, batch), labels)
                    if head
                    else answer_nll(model, batch, labels, line=True)
                )
                (counted * scale * sequence_mean(nll, batch["row"], rows).sum() / (passes * len(items))).backward()
        progress.close()
        found = {name: whole(gradient).clone() for name, gradient in gradients().items()}
        if not is_spread(model):
            sum_over_processes(list(found.values()))
        return found


def mean_squared_gradients(model: nn.Module, items: Sequence[Encoded], max_tokens: int, what: str) -> Gradients:
    """Return the mean over rows of the squared gradient of each row's CE on its true answer: the diagonal Fisher.

    Row by row, whatever the batches: a linear layer's gradient of a row is the product of its outputs' gradients with
    its inputs, so one backward of a whole batch gives the gradient of each of its rows. In float32.
    """
    modules = linear_modules(model)
    totals = {name: torch.zeros(m.weight.shape, device=m.weight.device) for name, m in modules.items()}

    def watch(name: str, _: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if not output.requires_grad:  # the head is being tried, or nothing below is wanted
            return
        inputs = args[0].detach()

        def add(gradient: Tensor) -> None:
            # [rows out in], one row at a time: a matrix for each row of a batch at once would be the largest tensor of all.
            for given, wanted in zip(inputs.float(), gradient.float(), strict=True):
                totals[name] += (wanted.T @ given).square() / len(items)

        output.register_hook(add)

    with _gradients_of(model):
        handles = [module.register_forward_hook(partial(watch, name)) for name, module in modules.items()]
        progress = bar(len(items), f"localize: squared gradients, {what}")
        try:
            for number, (batch, counted) in enumerate(_batches(model, items, max_tokens)):
                rows = len(batch["input_ids"])
                progress.update(counted * rows)
                if not is_mine(number):
                    continue
                nll = answer_nll(model, batch)
                # The sum over rows: each row's own gradient, undivided, reaches its own tokens.
                (counted * sequence_mean(nll, batch["row"], rows).sum()).backward()
        finally:
            progress.close()
            for handle in handles:
                handle.remove()
    sum_over_processes(list(totals.values()))
    return totals


def gradient_norms(model: nn.Module, pairs: Sequence[Pair], description: str) -> dict[Pair, float]:
    """Return, for each pair, the mean over all parameter tensors of the norm of the gradient of the answer's mean NLL."""
    found: dict[Pair, float] = {}
    saved = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    training = model.training
    model.eval()
    try:
        for parameter, _, _ in saved:
            parameter.requires_grad_(parameter.is_floating_point())
        with bar(len(set(pairs)), f"{description}: gradient norms") as progress:
            for pair in dict.fromkeys(pairs):
                for parameter, _, _ in saved:
                    parameter.grad = None
                batch = to_device(collate_units([Unit(pair[0], (pair[1],))]), device_of(model))
                answer_nll(model, batch).mean().backward()
                norms = [float(whole(p.grad).float().norm()) for p, _, _ in saved if p.grad is not None]
                found[pair] = sum(norms) / len(norms)
                progress.update(1)
    finally:
        for parameter, required, gradient in saved:
            parameter.requires_grad_(required)
            parameter.grad = gradient
        model.train(training)
    return found


def mean_activations(model: nn.Module, items: Sequence[Encoded], max_tokens: int, what: str) -> dict[str, Tensor]:
    """Return the mean absolute input of each linear layer at the answer tokens, per input feature, in float32."""
    modules = linear_modules(model)
    totals = {name: torch.zeros(m.weight.shape[1], device=m.weight.device) for name, m in modules.items()}
    tokens = sum(len(item.answer_ids) for item in items)
    read: list[Tensor] = []
    counts: list[int] = []

    def add(name: str, _: nn.Module, args: tuple[Tensor, ...]) -> None:
        inputs = args[0].flatten(0, -2)[read[-1].to(args[0].device)]
        totals[name] += counts[-1] * inputs.float().abs().sum(0) / tokens

    handles = [m.register_forward_pre_hook(partial(add, n)) for n, m in modules.items()]
    training = model.training
    model.eval()
    progress = bar(len(items), f"localize: activations, {what}")
    try:
        with torch.no_grad():
            for number, (batch, counted) in enumerate(_batches(model, items, max_tokens, last=True)):
                if is_mine(number):
                    read.append(batch["position"] + 1)  # where the answer tokens have been read
                    counts.append(counted)
                    answer_logits(model, batch)
                progress.update(counted * len(batch["input_ids"]))
    finally:
        progress.close()
        model.train(training)
        for handle in handles:
            handle.remove()
    sum_over_processes(list(totals.values()))
    return totals


def _batches(
    model: nn.Module, items: Sequence[Encoded], max_tokens: int, *, last: bool = False
) -> Iterator[tuple[Batch, int]]:
    """Yield the batches, each with 1; of a model spread over processes, the last with 0 until all forward equally often."""
    batches = list(length_batches([len(item) for item in items], max_tokens))
    fill = -len(batches) % processes().num_processes if is_spread(model) else 0
    for indices, counted in [(indices, 1) for indices in batches] + [(batches[-1], 0)] * fill:
        yield to_device(collate([items[i] for i in indices], last=last), device_of(model)), counted


def _corrupted(item: Encoded, vocab_size: int, generator: torch.Generator) -> Encoded:
    """Replace tokens of the answer half as often as it has tokens, at places drawn with replacement."""
    answer = list(item.answer_ids)
    for _ in range(len(answer) // 2):
        place = int(torch.randint(len(answer), (), generator=generator))
        answer[place] = int(torch.randint(vocab_size, (), generator=generator))
    return replace(item, answer_ids=tuple(answer))


@contextmanager
def _gradients_of(model: nn.Module, only: Collection[str] | None = None) -> Iterator:
    """Collect gradients of the localizable matrices (or some of them) alone, in float32; leave the model as it was."""
    targets = {name: p for name, p in matrices(model).items() if only is None or name in only}
    saved = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    training = model.training
    model.eval()
    totals: Gradients = {}
    handles = []
    wanted = {id(p): name for name, p in targets.items()}
    for parameter, _, _ in saved:
        parameter.grad = None
        parameter.requires_grad_(id(parameter) in wanted)
    for name, parameter in targets.items():
        if parameter.dtype not in (torch.float32, torch.float64):  # a sum over many batches would round in 16 bits

            def accumulate(p: Tensor, name: str = name) -> None:
                assert p.grad is not None
                totals[name] = totals[name].add_(p.grad) if name in totals else p.grad.float()
                p.grad = None

            handles.append(parameter.register_post_accumulate_grad_hook(accumulate))

    def collected() -> Gradients:
        return {
            name: totals[name] if name in totals else (torch.zeros_like(p) if p.grad is None else p.grad)
            for name, p in targets.items()
        }

    try:
        with fused(model):
            yield collected
    finally:
        for handle in handles:
            handle.remove()
        for parameter, required, gradient in saved:
            parameter.requires_grad_(required)
            parameter.grad = gradient
        model.train(training)
