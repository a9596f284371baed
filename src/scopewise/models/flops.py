"""Floating-point operations of forwards and backwards, the tokens they process, and the rate that the device reaches."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator
from typing import Any, cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from scopewise.data.batch import Batch


class FlopCounter:
    """Counts the tokens and operations of forwards and backwards while it is open, without synchronizing the device.

    Attributes:
        tokens: Prompt and answer tokens, without padding, as often as they were forwarded.
        operations: Floating-point operations that these need, a multiply-add counted as two: see `count_flops`.
    """

    def __init__(self) -> None:
        self._tokens: Tensor | int = 0
        self._operations: Tensor | float = 0.0
        self.dtype = torch.float32
        self.device = torch.device("cpu")

    @property
    def tokens(self) -> int:
        """Tokens so far."""
        return int(self._tokens)

    @property
    def operations(self) -> float:
        """Operations so far."""
        return float(self._operations)

    def __enter__(self) -> FlopCounter:
        _OPEN.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _OPEN.remove(self)

    def add(self, tokens: int, operations: float) -> None:
        """Add the counts from before an interruption."""
        self._tokens = self._tokens + tokens
        self._operations = self._operations + operations


_OPEN: list[FlopCounter] = []


@contextlib.contextmanager
def uncounted() -> Iterator[None]:
    """Do not count forwards in the context: trials on made-up ids are not part of the task."""
    before = _OPEN[:]
    _OPEN.clear()
    try:
        yield
    finally:
        _OPEN[:] = before


def count_forward(model: nn.Module, batch: Batch, head: nn.Module) -> None:
    """Add a forward of a batch to the open counters, and the backward that follows where gradients are recorded.

    Args:
        model: Without wrappers.
        batch: The batch; logits are counted at `position`.
        head: The model's head.
    """
    if not _OPEN:
        return
    # Where answers share prompts, the attention mask has another shape; positions tell the lengths.
    shared = "position_ids" in batch and "order" not in batch
    lengths = (batch["position_ids"] > 0).sum(-1) + 1 if shared else batch["attention_mask"].sum(-1)
    per_token, per_pair, per_answer = count_flops(model, head)
    lengths = lengths.double() if lengths.device.type != "mps" else lengths.float()
    operations = per_token * lengths.sum() + per_pair * lengths.square().sum() + per_answer * len(batch["position"])
    first = next(model.parameters())
    for counter in _OPEN:
        counter._tokens = counter._tokens + lengths.sum()
        counter._operations = counter._operations + operations
        counter.device = first.device
        counter.dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def count_flops(model: nn.Module, head: nn.Module) -> tuple[float, float, float]:
    """Return operations per token, per pair of tokens (i.e. times length²) of a row, and per answer token.

    A matrix W of m x n needs 2mn per token in the forward. Where gradients are recorded: 2mn for the gradient of its
    input, unless nothing below it is trained, and 2mn for its own, if it is. Of the experts of a layer, only as many count
    as a token is routed to. Causal attention over L tokens needs 2L²d per layer (two products, half of the pairs), and
    twice that backward. The head counts only at answer tokens. Not counted are padding and recomputation by checkpointing
    (the task does not need them), norms and activations, and the convolution and scan of recurrent layers, which are small
    compared with their matrices.
    """
    backward = torch.is_grad_enabled()
    per_token = per_pair = 0.0
    trained_below = False
    width = _attention_width(model.config)
    active = model.active_adapters if isinstance(model, PeftModel) else ()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and module is not head:
            below = name.partition(".lora_")[0]
            if below != name and (
                name.rpartition(".")[2] not in active or getattr(model.get_submodule(below), "merged", False)
            ):
                continue  # an inactive adapter, or one that is merged
            layer: Any = module
            weight = layer.weight
            packed = not weight.dtype.is_floating_point  # 4 bits: two weights in a byte
            size = 2.0 * (layer.in_features * layer.out_features if packed else weight.numel())
            trains = backward and weight.requires_grad
            per_token += size * (1 + (backward and trained_below) + trains)
            trained_below = trained_below or trains
        elif (
            width and name.endswith(("attn", "attention")) and not name.endswith("linear_attn")
        ):  # one module per layer
            per_pair += 2.0 * width * (3 if backward and trained_below else 1)
        for experts in _experts(module):
            trains = backward and experts.requires_grad
            size = 2.0 * experts.numel() * _sent_to(model.config) / len(experts)
            per_token += size * (1 + (backward and trained_below) + trains)
            trained_below = trained_below or trains
    matrix = cast(nn.Linear, head).weight
    per_answer = 2.0 * matrix.numel() * (1 + (backward and trained_below) + (backward and matrix.requires_grad))
    return per_token, per_pair, per_answer


def _experts(module: nn.Module) -> list[nn.Parameter]:
    """Return the tensors that hold the matrices of all experts of a layer."""
    count = getattr(module, "num_experts", None)
    return [p for p in module._parameters.values() if p is not None and p.dim() == 3 and p.shape[0] == count]


def _sent_to(config: Any) -> int:
    """Return how many experts of a layer a token is sent to."""
    text = config.get_text_config()
    named = (getattr(text, name, None) for name in ("num_experts_per_tok", "num_experts_per_token", "top_k_experts"))
    return next((count for count in named if count), 1)


def _attention_width(config: Any) -> int:
    """Return heads times their dimension; 0 of a model that has no attention, as recurrent ones."""
    text = config.get_text_config()
    heads = getattr(text, "num_attention_heads", None)
    if not heads:
        return 0
    latent = getattr(text, "v_head_dim", None)
    if latent and getattr(text, "qk_nope_head_dim", None):  # queries and keys have another dimension than values
        return int(heads * (text.qk_nope_head_dim + text.qk_rope_head_dim + latent) / 2)
    return int(heads) * int(getattr(text, "head_dim", None) or text.hidden_size // heads)


@functools.cache
def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the operations per second of the best of several large matrix products on this device.

    This is not the peak of the data sheet, but what a program reaches here with its number of threads.
    """
    size, rounds = (8192, 20) if device.type == "cuda" else (1024, 8)
    generator = torch.Generator(device=device).manual_seed(0)
    a = torch.randn(size, size, device=device, dtype=torch.float32, generator=generator).to(dtype)
    best = float("inf")
    with torch.inference_mode():
        for _ in range(rounds):
            _wait(device)
            start = time.perf_counter()
            a @ a
            _wait(device)
            best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
