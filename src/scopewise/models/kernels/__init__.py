"""Optional kernels: the same numbers up to rounding, in less time. `model.kernels: off` disables all of them.

`benchmarks/on_off.py` measures what each one is worth (`benchmarks/README.md`). A kernel changes a model only inside a
context.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable
from typing import Any, Literal

from peft.tuners.lora import Linear
from torch import nn

from scopewise.data.batch import Batch
from scopewise.models.kernels.lora_linear import fused_lora
from scopewise.models.kernels.merged_lora import with_merged_lora
from scopewise.models.kernels.packing import packed, packed_attention, saves

NAMES = ("lora_linear", "merged_lora", "packing")


class Kernels:
    """Which kernels a model runs with.

    Args:
        names: Some of `NAMES`.
    """

    def __init__(self, names: Collection[str] = ()) -> None:
        self.names = frozenset(names)

    @staticmethod
    def of(setting: Literal["auto", "off"]) -> Kernels:
        """Return the kernels of a run file's `model.kernels`."""
        return Kernels(NAMES if setting == "auto" else ())

    def training(self, model: nn.Module) -> contextlib.AbstractContextManager:
        """Return the context of a training, or of gradients."""
        return fused_lora(model) if "lora_linear" in self.names else contextlib.nullcontext()

    def evaluating(self, mergeable: Iterable[Linear]) -> contextlib.AbstractContextManager:
        """Return the context of an evaluation; the adapter must stay as it is while it is open."""
        return with_merged_lora(mergeable) if "merged_lora" in self.names else contextlib.nullcontext()

    @property
    def packs(self) -> bool:
        """Whether batches are packed if a model supports it."""
        return "packing" in self.names

    def pack(self, batch: Batch) -> Batch:
        """Return the batch, packed if that saves anything."""
        return packed(batch) if self.packs and saves(batch) else batch

    def attention(self, model: Any, batch: Batch) -> contextlib.AbstractContextManager:
        """Return the context of a forward of a batch, packed or not."""
        return packed_attention(model, batch) if "order" in batch else contextlib.nullcontext()
