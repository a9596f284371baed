"""LoRA layers in fewer passes over memory: one step where they are trained, folded into the weight below where they are not."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from peft import PeftModel
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers import PreTrainedModel

FOLDED_BYTES = 2**30
"""Largest second copy of weights that is made. Beyond it layers are so wide that a thin product costs little."""


class FusedLinear(Linear):
    """PEFT's LoRA layer as one step of the backward.

    PEFT computes `W x + (B (A x)) · s` in three passes over the output after the product of W, here it is one; its backward
    adds the two gradients of x, here the second is added by its product.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the layer's output: PEFT's own, but for rounding."""
        if args or kwargs or self.disable_adapters or self.merged or not _is_plain(self):
            return super().forward(x, *args, **kwargs)
        (adapter,) = self.active_adapters
        base, a, b = layers = [self.base_layer, self.lora_A[adapter], self.lora_B[adapter]]
        watched = any(
            m._forward_pre_hooks or m._forward_hooks or m._backward_hooks or "forward" in vars(m) for m in layers
        )
        if watched or type(base) is not nn.Linear or torch.is_autocast_enabled(x.device.type):
            return super().forward(x)
        dropped = self.lora_dropout[adapter](x)
        given = (
            x,
            None if dropped is x else dropped,
            base.weight,
            base.bias,
            a.weight,
            b.weight,
            self.scaling[adapter],
        )
        found: Tensor = _Product.apply(*given)  # type: ignore[no-untyped-call]
        return found


class _Product(torch.autograd.Function):
    """`W x + bias + s B (A d)`, where d is x, or x after dropout."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dropped: Tensor | None, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, s: float
    ) -> Tensor:
        flat = x.flatten(0, -2)
        read = flat if dropped is None else dropped.flatten(0, -2)
        low = read @ a.T
        ctx.save_for_backward(read, low, weight, a, b, flat if ctx.needs_input_grad[2] else None)
        ctx.scaling, ctx.shape, ctx.drops = s, x.shape, dropped is not None
        # Returned itself and not as a view: whoever reads logits writes over them.
        found = functional.linear(x, weight, bias)
        found.view(-1, weight.shape[0]).addmm_(low, b.T, alpha=s)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        read, low, weight, a, b, flat = ctx.saved_tensors
        gradient = gradient.flatten(0, -2)
        of_weight = gradient.T @ flat if ctx.needs_input_grad[2] else None
        of_bias = gradient.sum(0) if ctx.needs_input_grad[3] else None
        of_low = (gradient @ b).mul_(ctx.scaling)
        of_a = of_low.T @ read if ctx.needs_input_grad[4] else None
        of_b = (low.T @ gradient).mul_(ctx.scaling).T if ctx.needs_input_grad[5] else None
        of_x = of_dropped = None
        if ctx.needs_input_grad[0]:
            of_x = gradient @ weight
            if ctx.drops:
                of_dropped = (of_low @ a).view(ctx.shape)
            else:
                of_x.addmm_(of_low, a)
            of_x = of_x.view(ctx.shape)
        return of_x, of_dropped, of_weight, of_bias, of_a, of_b, None


@contextlib.contextmanager
def folded(model: nn.Module) -> Iterator[None]:
    """Compute every LoRA layer of a model as one product with W + s B A; the weights are put back, bit for bit.

    On a processor the thin products of LoRA take a good part of a small layer's time. It is done there alone, and for
    float32 weights alone: a sum in lower precision would round the adapter away.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, Linear) and _is_foldable(layer)]
    if layers:  # elsewhere the adapter would act where it does not
        shared, uncalled = _shared(model, layers), _uncalled(model, layers)
        layers = [layer for layer in layers if layer not in shared and layer not in uncalled]
    if sum(_weight(layer).nbytes for layer in layers) > FOLDED_BYTES:
        layers = []
    before: list[tuple[Linear, Tensor]] = []
    try:
        with torch.no_grad():
            for layer in layers:
                weight, (adapter,) = _weight(layer), layer.active_adapters
                before.append((layer, weight.data))
                a, b = (cast(Tensor, layer[adapter].weight) for layer in (layer.lora_A, layer.lora_B))
                weight.data = torch.addmm(weight.data, b, a, alpha=layer.scaling[adapter])
                layer.merged_adapters.append(adapter)  # PEFT's own sign: it then computes the layer below alone
        yield
    finally:
        for layer, data in before:
            _weight(layer).data = data
            layer.merged_adapters.clear()


def merged(model: PeftModel) -> PreTrainedModel:
    """Return the model with its adapter merged into its weights, where it computes the same; the adapter is gone.

    A weight that another module holds, as tied embeddings do, is copied first. An adapter on a layer that the model does not
    call, since it reads the weight by itself, does nothing, and is left out.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, Linear)]
    with torch.no_grad():
        for layer in _shared(model, layers):
            layer.base_layer.weight = nn.Parameter(_weight(layer).clone(), _weight(layer).requires_grad)
            model.config.get_text_config().tie_word_embeddings = model.config.tie_word_embeddings = False  # type: ignore
        for layer in _read(model, _uncalled(model, layers)):
            for b in cast(Any, layer.lora_B).values():
                b.weight.zero_()
    return model.merge_and_unload(safe_merge=True)  # type: ignore[operator, return-value]


def _shared(model: nn.Module, layers: Sequence[Linear]) -> set[Linear]:
    """Return the layers whose weight another module holds, too."""
    held = Counter(p.data_ptr() for m in model.modules() for p in m._parameters.values() if type(p) is nn.Parameter)
    return {layer for layer in layers if held[_weight(layer).data_ptr()] > 1}


_CALLED: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def _uncalled(model: nn.Module, layers: Sequence[Linear]) -> set[Linear]:
    """Return the layers that a forward on a made-up id does not call. It is looked at once."""
    new = [layer for layer in layers if layer not in _CALLED]
    if new:
        seen: set[nn.Module] = set()
        handles = [layer.register_forward_pre_hook(lambda m, _: seen.add(m)) for layer in new]
        training = model.training
        model.eval()
        try:
            with torch.no_grad():
                model(input_ids=torch.tensor([[4, 5]], device=_weight(new[0]).device), use_cache=False)
        finally:
            model.train(training)
            for handle in handles:
                handle.remove()
        _CALLED.update((layer, layer in seen) for layer in new)
    return {layer for layer in layers if not _CALLED[layer]}


def _read(model: nn.Module, layers: set[Linear]) -> list[Linear]:
    """Return those of some uncalled layers whose weights make the output still: not experts that no token was sent to."""
    found, weights = list(layers), [_weight(layer) for layer in layers]
    if not found:
        return []
    flags = [weight.requires_grad for weight in weights]
    try:
        with torch.enable_grad():
            for weight in weights:
                weight.requires_grad_(True)
            output = model(input_ids=torch.tensor([[4, 5]], device=weights[0].device), use_cache=False).logits.sum()
            gradients = torch.autograd.grad(output, weights, allow_unused=True)
    finally:
        for weight, flag in zip(weights, flags, strict=True):
            weight.requires_grad_(flag)
    return [layer for layer, gradient in zip(found, gradients, strict=True) if gradient is not None]


def _weight(layer: Linear) -> Tensor:
    return cast(Tensor, layer.base_layer.weight)


def _is_plain(layer: Linear) -> bool:
    """Return whether a layer has one active adapter, of LoRA without variants or biases, in the dtype of its weight."""
    if len(layer.active_adapters) != 1:
        return False
    (adapter,) = layer.active_adapters
    return (
        adapter in layer.lora_A
        and adapter not in layer.lora_variant
        and not layer.lora_bias[adapter]
        and layer.lora_A[adapter].weight.dtype == _weight(layer).dtype
    )


def _is_foldable(layer: Linear) -> bool:
    """Return whether a layer is plain, and its weight a whole float32 matrix of this process on a processor."""
    weight = _weight(layer)
    return (
        not layer.disable_adapters
        and not layer.merged
        and _is_plain(layer)
        and type(layer.base_layer) is nn.Linear
        and type(weight) is nn.Parameter
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and weight.shape == (layer.out_features, layer.in_features)
    )
