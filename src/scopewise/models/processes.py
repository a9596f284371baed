"""Sharing evaluation among the processes of `accelerate launch` or `torchrun`: one process alone has everything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

T = TypeVar("T")


def processes() -> PartialState:
    """Return the group of processes. Without an accelerator it has to be told so, or each process thinks it is alone."""
    return PartialState(cpu=not torch.accelerator.is_available())


def share_of(items: Sequence[T]) -> list[T]:
    """Return this process's share: every n-th item, so that long and short batches are spread."""
    state = processes()
    return list(items[state.process_index :: state.num_processes])


def gathered(part: T) -> list[T]:
    """Return what every process found, in the order of the processes; all of them get it."""
    return gather_object([part]) if processes().num_processes > 1 else [part]


def is_first() -> bool:
    """Return whether this process is the one that writes and prints."""
    return processes().is_main_process
