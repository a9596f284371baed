"""The inputs of each expert of a layer whose matrices are stacked in one tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from scopewise.models.architecture import hooks, unwrap


@dataclass(frozen=True, eq=False)
class Stack:
    """The matrices of all experts of a layer, as one tensor.

    Attributes:
        owner: The module that holds the tensor.
        attribute: Its name there.
        shape: Its shape, experts first; of two dimensions where there is one matrix alone, as of a router with an adapter.
    """

    owner: nn.Module
    attribute: str
    shape: torch.Size

    @property
    def experts(self) -> int:
        """The number of matrices."""
        return self.shape[0] if len(self.shape) == 3 else 1


See = Callable[[Stack, int, Tensor], None]
"""Called with a stack, the index of an expert, and its inputs [tokens features]."""

_SLICE = (torch.Tensor.__getitem__, torch.select, torch.Tensor.select)
_PRODUCTS = (
    functional.linear,
    torch.matmul,
    torch.mm,
    torch.bmm,
    torch.Tensor.matmul,
    torch.Tensor.__matmul__,
    torch.Tensor.mm,
    torch.Tensor.bmm,
)


@contextmanager
def expert_inputs(model: nn.Module, stacks: Sequence[Stack], see: See) -> Iterator[None]:
    """Pass the inputs that each expert's matrix is multiplied by to `see`, in all forwards inside the context.

    The library is set to run the experts one by one, as its models are written, instead of all at once. An adapter on the
    tensor changes the matrices, not the inputs.

    Args:
        model: A causal LM, with or without an adapter.
        stacks: The stacks to observe.
        see: Called with the inputs of each expert, call by call.
    """
    inner: Any = unwrap(model)
    inner = inner.get_base_model() if isinstance(inner, PeftModel) else inner
    kept = inner.get_experts_implementation() if isinstance(inner, PreTrainedModel) else None
    by_owner: dict[nn.Module, list[Stack]] = {}
    for stack in stacks:
        by_owner.setdefault(stack.owner, []).append(stack)
    watch = _Watch(by_owner, see)
    handles = (
        handle
        for owner in by_owner
        for handle in (owner.register_forward_pre_hook(watch.enter), owner.register_forward_hook(watch.leave))
    )
    try:
        if kept is not None and any(kept.values()):
            inner.set_experts_implementation("eager")
        with hooks(handles), watch:
            yield
    finally:
        if kept is not None and any(kept.values()):
            inner.set_experts_implementation(kept)


class _Watch(TorchFunctionMode):
    """Traces which products the tensors of the running layer are used in."""

    def __init__(self, by_owner: dict[nn.Module, list[Stack]], see: See) -> None:
        super().__init__()
        self._by_owner, self._see = by_owner, see
        self._open: list[nn.Module] = []
        self._taken: dict[int, tuple[Tensor, Stack, int]] = {}

    def enter(self, owner: nn.Module, _: Any) -> None:
        """Called before the layer runs."""
        self._open.append(owner)

    def leave(self, owner: nn.Module, _: Any, __: Any) -> None:
        """Called after the layer has run."""
        self._open.remove(owner)
        self._taken.clear()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self._open:
            return result
        if func in _SLICE and result.dim() == 2 and (stack := self._stack(args[0])) is not None:
            index = args[-1]
            self._taken[id(result)] = (result, stack, int(index[0] if isinstance(index, tuple) else index))
        elif func in _PRODUCTS and len(args) > 1:
            given, weight = args[0], args[1]
            if id(weight) in self._taken:
                _, stack, index = self._taken[id(weight)]
                self._see(stack, index, given.detach().reshape(-1, given.shape[-1]))
            elif (stack := self._stack(weight)) is None:
                return result
            elif len(stack.shape) == 2:
                self._see(stack, 0, given.detach().reshape(-1, given.shape[-1]))
            else:  # all experts at a time, each with its own rows
                for index, rows in enumerate(given.detach()):
                    self._see(stack, index, rows)
        return result

    def _stack(self, tensor: Any) -> Stack | None:
        """Return the stack that a tensor of the layer under way is, also with an adapter's part added to it."""
        if not isinstance(tensor, Tensor):
            return None
        found = [stack for stack in self._by_owner[self._open[-1]] if stack.shape == tensor.shape]
        return found[0] if len(found) == 1 else None
