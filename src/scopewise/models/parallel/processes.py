"""Sharing work among the processes of `accelerate launch`: one process alone has everything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, gather_object, parse_flag_from_env
from torch import Tensor, nn

T = TypeVar("T")


def processes() -> PartialState:
    """Return this process's rank and the number of processes. Without an accelerator they communicate through gloo."""
    return PartialState(cpu=on_cpu())


def on_cpu() -> bool:
    """Return whether the CPU is used: there is no accelerator, or `ACCELERATE_USE_CPU=true`."""
    return not torch.accelerator.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU")


def default_device() -> torch.device:
    """Return this process's accelerator where there is one, else the CPU (`accelerate launch` gives each its own)."""
    return torch.device(processes().device)


def on_deepspeed() -> bool:
    """Return whether `accelerate launch` (or `TrainingArguments.deepspeed`) asked for DeepSpeed."""
    return processes().distributed_type == DistributedType.DEEPSPEED


def share_of(items: Sequence[T], *, equal: bool = False) -> list[T]:
    """Return this process's share: every n-th item, so that each gets long and short batches.

    Args:
        items: Of all processes.
        equal: Whether all get the same number; where items run out, the first ones are repeated.
    """
    state = processes()
    stop = len(items) + (-len(items) % state.num_processes if equal else 0)
    return [items[i % len(items)] for i in range(state.process_index, stop, state.num_processes)]


def any_process(mine: bool) -> bool:
    """Return whether the value is true in any process. All have to call it."""
    told = torch.tensor(float(mine), device=processes().device)
    sum_over_processes([told])
    return bool(told)


def gathered(part: T) -> list[T]:
    """Return the values of all processes, in their order, to every process."""
    return gather_object([part]) if processes().num_processes > 1 else [part]


def is_main() -> bool:
    """Return whether this is the process that writes files."""
    return processes().is_main_process


def wait() -> None:
    """Wait for all processes."""
    processes().wait_for_everyone()


def is_mine(number: int) -> bool:
    """Return whether the n-th piece of work is this process's: every n-th, as in `share_of`."""
    state = processes()
    return number % state.num_processes == state.process_index


def sum_over_processes(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its sum over all processes, in one exchange per kind of number. All have to call it."""
    if processes().num_processes == 1:
        return
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        alike = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.detach().flatten() for tensor in alike])
        torch.distributed.all_reduce(flat)
        for tensor, part in zip(alike, flat.split([tensor.numel() for tensor in alike]), strict=True):
            tensor.detach().copy_(part.view_as(tensor))


def average_gradients(model: nn.Module) -> None:
    """Average gradients over processes; a parameter without any keeps None, so that no optimiser decays it."""
    trained = [p for p in model.parameters() if p.requires_grad]
    present = torch.tensor([float(p.grad is not None) for p in trained], device=trained[0].device)
    sum_over_processes([present])
    found = [p for p, count in zip(trained, present.tolist(), strict=True) if count]
    for parameter in found:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [p.grad for p in found if p.grad is not None]
    sum_over_processes(gradients)
    for gradient in gradients:
        gradient.div_(processes().num_processes)
