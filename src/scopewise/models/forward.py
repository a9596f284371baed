"""The forward pass that computes logits at answer positions only."""

from __future__ import annotations

from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from jaxtyping import Float
from torch import Tensor, nn

from scopewise.data.batch import Batch
from scopewise.errors import ModelError


def answer_logits(model: nn.Module, batch: Batch) -> Float[Tensor, "tokens vocab"]:
    """Return the logits that predict each answer token of the batch, in the order of `batch["label"]`.

    The head is the largest matrix of a small model and its output the largest tensor of any, so hidden states are
    gathered at the answer positions *before* it. A hook on the output embedding does this: the model's own forward
    runs unchanged, with its scaling and soft-capping, under any wrapper (DDP, FSDP, PEFT), for every architecture.

    Args:
        model: A Hugging Face causal LM, plain, with adapters, or wrapped.
        batch: As `collate` makes it, on the model's device.
    """
    head = output_embeddings(model)
    position = batch["position"]

    def gather(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden = args[0]
        return (hidden.flatten(0, 1)[position.to(hidden.device)].unsqueeze(0), *args[1:])

    handle = head.register_forward_pre_hook(gather)
    try:
        output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
    finally:
        handle.remove()
    return output.logits.squeeze(0)


def output_embeddings(model: nn.Module) -> nn.Module:
    """Return the head of a causal LM, through any wrapper. Raises ModelError where it has none."""
    head = extract_model_from_parallel(model).get_output_embeddings()  # type: ignore[attr-defined]
    if head is None:
        raise ModelError(f"model: {type(model).__name__} has no output embeddings; a causal language model is needed")
    return head


def device_of(model: nn.Module) -> torch.device:
    """Return the device that the model's inputs belong on: that of its first parameter."""
    return next(model.parameters()).device


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return the batch on `device`."""
    return {name: value.to(device) for name, value in batch.items()}
