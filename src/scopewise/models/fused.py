"""Layers in fewer passes over memory: LoRA, RMS norms, gates and rotations, with the outputs and gradients they had.

A library's layer is a line of elementwise operations, each of which reads and writes whole tensors, and its backward has
twice as many. Beside the products of a small model, or of a short batch, they are a good part of the time.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from scopewise.models.lora import FusedLinear


@contextlib.contextmanager
def fused(model: nn.Module) -> Iterator[None]:
    """Compute a model's LoRA layers, RMS norms, gated layers and rotary positions in fewer passes while the context is open.

    Only what does the same is exchanged: all but LoRA is tried on made-up numbers first, so that a model with formulas of
    its own keeps them. Parameters, names and hooks stay what they are.
    """
    modules = list(model.modules())
    layers: list[tuple[nn.Module, type, type]] = [(m, type(m), FusedLinear) for m in modules if type(m) is Linear]
    layers += [(m, type(m), _exchanged(_FusedNorm, type(m))) for m in modules if is_rms_norm(m)]  # type: ignore[arg-type]
    layers += [(m, type(m), _exchanged(_FusedGate, type(m))) for m in modules if is_swiglu(m)]  # type: ignore[arg-type]
    names = {type(m).__module__ for m in modules}
    places = [vars(sys.modules[name]) for name in names if name in sys.modules]
    rotations = [(place, place[_ROTARY]) for place in places if is_rotary(place.get(_ROTARY))]
    for layer, _, kind in layers:
        layer.__class__ = kind
    for place, _ in rotations:
        place[_ROTARY] = rotated
    try:
        yield
    finally:
        for layer, kind, _ in layers:
            layer.__class__ = kind
        for place, function in rotations:
            place[_ROTARY] = function


# -- RMS norms --------------------------------------------------------------------------------------------------------

_NORMS: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def is_rms_norm(module: nn.Module) -> bool:
    """Return whether a module still computes `weight * x / sqrt(mean(x²) + epsilon)`, and its weight is not trained."""
    if isinstance(module, _FusedNorm) or list(module._parameters) != ["weight"] or module._modules or module._buffers:
        return False
    weight: Any = module.weight
    if type(weight) is not nn.Parameter or weight.requires_grad or weight.dim() != 1 or _epsilon(module) is None:
        return False
    if module not in _NORMS:
        # With a weight of the trial's own: a fresh one, all ones, hides what a formula does with it.
        own = torch.linspace(-2.0, 3.0, len(weight), device=weight.device).to(weight.dtype)
        x = torch.linspace(-1.0, 2.0, 4 * len(weight), device=weight.device).view(4, -1)
        x = x * torch.tensor([1e-4, 1.0, 1.0, 1e3], device=weight.device).unsqueeze(-1)

        def theirs(x: Tensor) -> Tensor:
            found: Tensor = torch.func.functional_call(module, {"weight": own}, (x,))
            return found

        trials = [x.to(dtype) for dtype in (weight.dtype, torch.float32, torch.bfloat16)]
        _NORMS[module] = all(_same(theirs, lambda x: _rms_norm(x, own, _epsilon(module))[0], x) for x in trials)
    return _NORMS[module]


def _same(theirs: Callable[..., Any], ours: Callable[..., Any], *given: Tensor) -> bool:
    """Return whether two functions give the same, in the same dtype; one that fails on what it is given does not."""
    try:
        with torch.no_grad():
            expected, found = theirs(*given), ours(*given)
        pairs = [(expected, found)] if isinstance(expected, Tensor) else list(zip(expected, found, strict=True))
    except (RuntimeError, TypeError, ValueError, AttributeError, LookupError):
        return False
    return all(
        a.dtype == b.dtype
        and a.shape == b.shape
        and torch.allclose(a, b, rtol=0, atol=2**-5 if a.dtype.itemsize == 2 else 1e-5)
        for a, b in pairs
    )


def _epsilon(module: nn.Module) -> Any:
    return getattr(module, "variance_epsilon", getattr(module, "eps", None))


@functools.cache
def _exchanged(ours: type, theirs: type) -> type:
    """Return a class that has our forward, and is the library's in everything else."""
    return type(f"Fused{theirs.__name__}", (ours, theirs), {})


class _FusedNorm:
    """An RMS norm that has been exchanged."""

    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the normalised x: the library's own where it is given more than that, as a gate."""
        if args or kwargs:
            return super().forward(x, *args, **kwargs)  # type: ignore[misc, no-any-return]
        if not torch.is_grad_enabled():
            return _rms_norm(x, self.weight, _epsilon(self))[0]
        found: Tensor = _RmsNorm.apply(x, self.weight, _epsilon(self))  # type: ignore[no-untyped-call]
        return found


def _rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Return the normalised x and 1 / sqrt(mean(x²) + epsilon), both computed in float32."""
    wide = x.float() if x.dtype != torch.float64 else x
    scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
    normalised = (wide * scale).to(x.dtype)
    return (normalised.mul_(weight) if weight.dtype == x.dtype else normalised * weight), scale


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        found, scale = _rms_norm(x, weight, epsilon)
        ctx.save_for_backward(x, weight, scale)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        x, weight, scale = ctx.saved_tensors
        found = (gradient * weight).to(scale.dtype)
        wide = x.to(scale.dtype)
        along = (found * wide).sum(-1, keepdim=True).mul_(scale.pow(3)).div_(-x.shape[-1])
        return found.mul_(scale).addcmul_(wide, along).to(x.dtype), None, None


# -- gated feed-forward layers ----------------------------------------------------------------------------------------

_GATES: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
_PROJECTIONS = {"gate_proj", "up_proj", "down_proj"}


def is_swiglu(module: nn.Module) -> bool:
    """Return whether a module computes `down(silu(gate(x)) * up(x))`."""
    if isinstance(module, _FusedGate) or not module._modules.keys() >= _PROJECTIONS:
        return False
    others = [child for name, child in module.named_children() if name not in _PROJECTIONS]
    if any(child._forward_hooks or child._forward_pre_hooks or child._backward_hooks for child in others):
        return False
    if module not in _GATES:
        beside = [
            module,
            *(m for child in others for m in child.modules()),
        ]  # what could be trained but the projections
        _GATES[module] = not any(m._parameters or m._buffers for m in beside) and _is_swiglu(module)
    return _GATES[module]


def _is_swiglu(module: nn.Module) -> bool:
    """Try it, in training too, with its projections replaced: what they give reaches far, so that limits are seen."""
    gate = torch.linspace(-60.0, 60.0, 97).view(1, 1, -1)
    up = gate.roll(41, -1)
    children, modes = module._modules.copy(), [(m, m.training) for m in module.modules()]
    module._modules.update(gate_proj=_Gives(gate), up_proj=_Gives(up), down_proj=nn.Identity())
    try:
        with torch.random.fork_rng(devices=()):
            return all(
                _same(module.train(mode).forward, lambda _: functional.silu(gate) * up, gate) for mode in (True, False)
            )
    finally:
        module._modules.update(children)
        for m, mode in modes:
            m.training = mode


class _Gives(nn.Module):
    """Stands for a projection."""

    def __init__(self, given: Tensor) -> None:
        super().__init__()
        self.given = given

    def forward(self, x: Tensor) -> Tensor:
        """Return what was given, whatever it is asked."""
        return self.given


class _FusedGate:
    """A gated feed-forward layer that has been exchanged."""

    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the layer's output: the library's own where it is given more."""
        if args or kwargs:
            return super().forward(x, *args, **kwargs)  # type: ignore[misc, no-any-return]
        gate, up = self.gate_proj(x), self.up_proj(x)
        if not torch.is_grad_enabled():
            return self.down_proj(functional.silu(gate).mul_(up))  # type: ignore[no-any-return]
        return self.down_proj(_Gated.apply(gate, up))  # type: ignore[no-any-return, no-untyped-call]


class _Gated(torch.autograd.Function):
    """`silu(gate) * up`; the backward makes silu(gate) again, for keeping it costs more than it."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return functional.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        of_up = functional.silu(gate).mul_(gradient)
        of_gate = gradient * up
        return torch.ops.aten.silu_backward.grad_input(of_gate, gate, grad_input=of_gate), of_up


# -- rotary positions -------------------------------------------------------------------------------------------------

_ROTARY = "apply_rotary_pos_emb"


@functools.cache
def is_rotary(function: Any) -> bool:
    """Return whether a function turns the halves of q and k against each other, as `rotated` does, and is not `rotated`."""
    parameters = ["q", "k", "cos", "sin", "unsqueeze_dim"]
    if function is rotated or not callable(function) or list(inspect.signature(function).parameters) != parameters:
        return False
    q = torch.linspace(-1.0, 2.0, 96).view(2, 2, 3, 8)
    given = (q, q.flip(0), q[:, 0].cos(), q[:, 1].sin())
    low = tuple(x.bfloat16() for x in given)
    part = (*given[:2], given[2][..., :4], given[3][..., :4])
    if not all(_same(function, rotated, *trial) for trial in (given, low, (*low[:2], *given[2:]))):
        return False
    try:
        function(*part)  # some turn the first dimensions alone, others fail
    except RuntimeError:
        return True
    return _same(function, rotated, *part)


def rotated(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> tuple[Tensor, Tensor]:
    """Return q and k ([batch heads seq dim]) with their positions turned in: `x cos + (-x₂, x₁) sin`, halves x₁ and x₂.

    Where cos and sin have fewer dimensions, the first ones are turned, and the others stay.
    """
    turned = cos.shape[-1]
    if turned < q.shape[-1]:
        first = rotated(q[..., :turned], k[..., :turned], cos, sin, unsqueeze_dim)
        return torch.cat((first[0], q[..., turned:]), -1), torch.cat((first[1], k[..., turned:]), -1)
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    if not torch.is_grad_enabled():
        one, two = sin.chunk(2, -1)
        return _turned(q, cos, one, two, 1), _turned(k, cos, one, two, 1)
    turned_q, turned_k = _Rotated.apply(q, k, cos, sin)  # type: ignore[no-untyped-call]
    return turned_q, turned_k


class _Rotated(torch.autograd.Function):
    """A rotation of both; the gradient is the rotation back."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(cos, sin)
        one, two = sin.chunk(2, -1)
        return _turned(q, cos, one, two, 1), _turned(k, cos, one, two, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_q: Tensor, of_k: Tensor) -> tuple[Tensor, Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        one, two = sin.chunk(2, -1)
        return _turned(of_q, cos, two, one, -1), _turned(of_k, cos, two, one, -1), None, None


def _turned(x: Tensor, cos: Tensor, one: Tensor, two: Tensor, sign: int) -> Tensor:
    """Return `x cos + sign (-x₂ one, x₁ two)`."""
    found = x * cos
    (x1, x2), (y1, y2) = x.chunk(2, -1), found.chunk(2, -1)
    y1.addcmul_(x2, one, value=-sign)
    y2.addcmul_(x1, two, value=sign)
    return found
