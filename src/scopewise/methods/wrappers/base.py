"""Base class of wrappers, and what a wrapper sees of an optimiser step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from scopewise.data.batch import Batch
from scopewise.data.rows import Row
from scopewise.errors import ConfigError
from scopewise.methods.base import Method
from scopewise.registry import allowed, split_method
from scopewise.settings import make

Term = Literal["forget", "retain"]
Gradient = list[Tensor]
"""One tensor for each trained parameter, in the order of `Step.parameters`."""
Parts = Sequence[Batch]
"""Rows of one term of a step, in one or several batches."""
Inner = Callable[[Parts], Gradient]
"""Computes the gradient of a term over some rows, at the model's current parameters."""


class Step(ABC):
    """One optimiser step: all its rows on this process, and the losses and gradients of the wrapped method over them.

    Losses and gradients include the weights of the method. They are divided by the weights of the whole step, so those of
    micro-batches add up, and they are summed over processes.

    Attributes:
        parameters: The trained parameters.
        start: Their values before the first step; empty if no wrapper needs them.
        blocks: The decoder blocks.
        number: Optimiser steps before this one.
        count: Optimiser steps of the whole training.
        seed: A text that differs between steps, but not between a resumed and an uninterrupted training.
        forget_rows: The forget rows of the training, to which `part["index"]` refers.
        memory: What a wrapper keeps until the end of the training, by its name. A resumed training begins with an empty
            one, so store only what can be computed again from the values before the first step.
    """

    parameters: Sequence[nn.Parameter]
    start: Sequence[Tensor]
    blocks: Sequence[nn.Module]
    number: int
    count: int
    seed: str
    forget_rows: Sequence[Row]
    memory: dict[str, Gradient]

    @abstractmethod
    def loss(self, term: Term, parts: Parts) -> float:
        """Return the loss of a term at the current parameters."""

    @abstractmethod
    def local_loss(self, part: Batch) -> Tensor:
        """Return the loss of a part on this process, as a scalar to be differentiated."""

    @abstractmethod
    def relearning_gradient(self, rows: Sequence[int]) -> Gradient:
        """Return the gradient of the mean CE of the true answers of some forget rows."""

    @abstractmethod
    def forget_gradient(self) -> Gradient:
        """Return the gradient of the wrapped method's forget term over all forget rows."""

    @abstractmethod
    def keep(self, parts: Parts, rows: set[int]) -> Parts:
        """Return the rows of `parts` that are among `rows`, the indices of rows of the training."""


@dataclass(frozen=True)
class Beginning:
    """The model before the first step, which a wrapper may change in place.

    Attributes:
        parameters: All parameters of the model, by name.
        region: The trained parameters, each with a mask (ones or booleans) of the entries that may change.
        seed: Seed of the training.
        base: Returns the values of the trained parameters before fine-tuning, by name; only for wrappers with `needs_base`.
    """

    parameters: Mapping[str, nn.Parameter]
    region: Mapping[str, Tensor]
    seed: int
    base: Callable[[], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Phase:
    """A second training, which starts from the result of the first, on the same rows and region.

    Attributes:
        method: Its method; the reference is the model at the beginning of this training.
        wrappers: Its wrappers.
        arguments: Training arguments that differ from those of the first training.
    """

    method: Method
    wrappers: tuple[Wrapper, ...]
    arguments: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Wrapper:
    """Base of wrappers: settings as fields, and the hooks that it overrides.

    Wrappers are applied in the order of their names: in `npo+sam+fo_zo`, `sam` is inside `fo_zo`.
    """

    name: ClassVar[str]
    needs_start: ClassVar[bool] = False
    """Whether `Step.start` is read."""
    needs_base: ClassVar[bool] = False
    """Whether `Beginning.base` is read."""

    @property
    def changes_steps(self) -> bool:
        """Whether it changes gradients, not only the model before or after the steps."""
        return type(self).gradient is not Wrapper.gradient or type(self).combine is not Wrapper.combine

    @property
    def changes_start(self) -> bool:
        """Whether it changes the model before the first step."""
        return type(self).begin is not Wrapper.begin

    @property
    def then(self) -> Phase | None:
        """A second training after the wrapped one."""
        return None

    def check(self, method: Method) -> None:
        """Raise ConfigError if the wrapper cannot be combined with a method."""

    def check_model(self, model: nn.Module) -> None:
        """Raise ConfigError if the wrapper cannot be applied to a model."""

    def begin(self, start: Beginning) -> None:
        """Change the model before the first step, in place; the reference is the model before that."""

    def gradient(self, step: Step, term: Term, parts: Parts, inner: Inner) -> Gradient:
        """Return the gradient of a term; `inner` computes that of what is wrapped."""
        return inner(parts)

    def combine(self, step: Step, forget: Gradient, retain: Gradient) -> tuple[Gradient, Gradient]:
        """Return the gradients of both terms, whose sum is the gradient of the step."""
        return forget, retain


def make_wrappers(
    method: str, arguments: Mapping[str, Mapping[str, Any]], *, others: Sequence[str] = ()
) -> tuple[Wrapper, ...]:
    """Build the wrappers that a method's name has after `+`.

    Args:
        method: Such as `npo+sam`.
        arguments: Settings of wrappers, by their names.
        others: Other methods of the run, whose wrappers the arguments may also be for.

    Raises:
        ConfigError: an unknown name or setting, a value that does not fit, or settings of a wrapper that is not used.
    """
    names = split_method(method)[1]
    known = {*names, *(wrapper for other in others for wrapper in split_method(other)[1])}
    for name in arguments:
        if name not in known:
            advice = allowed(name, sorted(known)) if known else f"{method} has no wrapper; write {method}+{name}"
            raise ConfigError(f"unlearn.wrapper_args: {name!r}; {advice}")
    return tuple(make("wrappers", name, f"unlearn.wrapper_args.{name}", arguments.get(name, {})) for name in names)


def add(first: Gradient, second: Gradient, factor: float = 1.0) -> Gradient:
    """Return `first + factor · second`."""
    return [a + factor * b for a, b in zip(first, second, strict=True)]


def dot(first: Gradient, second: Gradient) -> float:
    """Return the inner product over all parameters, summed in float64."""
    return float(sum((a.double() * b.double()).sum() for a, b in zip(first, second, strict=True)))


@contextmanager
def moved(parameters: Sequence[nn.Parameter], direction: Gradient, factor: float) -> Iterator[None]:
    """Move the parameters by `factor · direction`; afterwards they have their values again, to the last digit."""
    with restored(parameters):
        with torch.no_grad():
            for parameter, part in zip(parameters, direction, strict=True):
                parameter.add_(part, alpha=factor)
        yield


@contextmanager
def restored(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Restore the parameters at the end."""
    kept = [parameter.detach().clone() for parameter in parameters]
    try:
        yield
    finally:
        assign(parameters, kept)


def assign(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
    """Copy values into the parameters."""
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
