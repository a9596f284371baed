"""Merge a LoRA adapter into the base weights, if the model then gives the same result."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import torch
from peft import PeftModel
from peft.tuners.lora import Linear
from torch import Tensor, nn
from transformers import PreTrainedModel

from scopewise.models.architecture import evaluation_mode, hooks, kept_flags


def merged(model: PeftModel) -> PreTrainedModel:
    """Return the model with its adapter merged into its weights; the adapter is gone.

    A weight that another module shares, such as a tied embedding, is copied first. An adapter on a layer that the model
    never calls, because it reads the layer's weight directly, has no effect and is left out.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, Linear)]
    with torch.no_grad():
        for layer in shared_layers(model, layers):
            layer.base_layer.weight = nn.Parameter(weight_of(layer).clone(), weight_of(layer).requires_grad)
            model.config.get_text_config().tie_word_embeddings = model.config.tie_word_embeddings = False  # type: ignore
        for layer in _read(model, uncalled_layers(model, layers)):
            for b in cast(Any, layer.lora_B).values():
                b.weight.zero_()
    return model.merge_and_unload(safe_merge=True)  # type: ignore[operator, return-value]


def weight_of(layer: Linear) -> Tensor:
    """Return the weight that a layer's adapter is added to."""
    return cast(Tensor, layer.base_layer.weight)


def shared_layers(model: nn.Module, layers: Sequence[Linear]) -> set[Linear]:
    """Return the layers that share their weight with another module."""
    held = Counter(p.data_ptr() for m in model.modules() for p in m._parameters.values() if type(p) is nn.Parameter)
    return {layer for layer in layers if held[weight_of(layer).data_ptr()] > 1}


def uncalled_layers(model: nn.Module, layers: Sequence[Linear]) -> set[Linear]:
    """Return the layers that a forward on two made-up ids does not call."""
    with evaluation_mode(model), torch.no_grad(), calls(layers) as seen:
        model(input_ids=torch.tensor([[4, 5]], device=next(model.parameters()).device), use_cache=False)
    return set(layers) - seen


@contextlib.contextmanager
def calls(layers: Iterable[Linear]) -> Iterator[set[Linear]]:
    """Collect those of some layers that are called while the context is open."""
    seen: set[Linear] = set()
    with hooks(layer.register_forward_pre_hook(lambda m, _: seen.add(m)) for layer in layers):
        yield seen


def _read(model: nn.Module, layers: set[Linear]) -> list[Linear]:
    """Return those uncalled layers whose weights still have a part in the output: not experts that no token was sent to."""
    found, weights = list(layers), [weight_of(layer) for layer in layers]
    if not found:
        return []
    with kept_flags(model), torch.enable_grad():
        for weight in weights:
            weight.requires_grad_(True)
        output = model(input_ids=torch.tensor([[4, 5]], device=weights[0].device), use_cache=False).logits.sum()
        gradients = torch.autograd.grad(output, weights, allow_unused=True)
    return [layer for layer, gradient in zip(found, gradients, strict=True) if gradient is not None]
