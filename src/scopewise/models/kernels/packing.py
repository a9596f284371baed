"""Packing: concatenate the rows of a batch, so that only attention computes padding.

Attention pads queries, keys and values, lets each row attend only to itself, and packs the result again. transformers can
also pack, by `position_ids` that restart with each row, but with SDPA it then builds a mask of all tokens by all tokens.
With FlashAttention it needs no mask, so this kernel is not used there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from scopewise.data.batch import Batch

_NAME = "scopewise_packed"


class _Packed(NamedTuple):
    """The mapping between the cells of the padded rows and the packed tokens.

    Attributes:
        place: [batch · seq] For each cell of the padded rows, the index of its packed token (for padding, any index).
        order: [tokens] For each packed token, its cell.
        rows: Number of rows.
    """

    place: Tensor
    order: Tensor
    rows: int


_PACKED: ContextVar[_Packed | None] = ContextVar("_PACKED", default=None)


SPARSE = 0.97
"""Share of tokens in a batch above which packing costs more than the padding it saves."""


def packed(batch: Batch) -> Batch:
    """Return a batch with its rows concatenated: `input_ids` [1 tokens], and `position` as indices into [1 · tokens].

    It also has `position_ids` [1 tokens] within each row, and `place` and `order`, which `packed_attention` takes. The
    `attention_mask` stays that of the padded rows.
    """
    mask = batch["attention_mask"]
    order = mask.flatten().nonzero().squeeze(-1)
    place = (mask.flatten().cumsum(0) - 1).clamp(min=0)
    within = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
    return batch | {
        "input_ids": batch["input_ids"].flatten()[order].unsqueeze(0),
        "position_ids": within.flatten()[order].unsqueeze(0),
        "position": place[batch["position"]],
        "place": place,
        "order": order,
    }


def saves(batch: Batch) -> bool:
    """Return whether a batch has enough padding for packing to be worth it."""
    mask = batch["attention_mask"]
    return int(mask.sum()) < SPARSE * mask.numel()


@contextlib.contextmanager
def packed_attention(model: Any, batch: Batch) -> Iterator[None]:
    """Let a model's attention keep the rows of a packed batch apart while the context is open.

    Args:
        model: Without wrappers; one that `packs`.
        batch: As `packed` made it.
    """
    config = model.config
    before = config._attn_implementation
    token = _PACKED.set(_Packed(batch["place"], batch["order"], len(batch["attention_mask"])))
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = before
        _PACKED.reset(token)


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **settings: Any
) -> tuple[Tensor, None]:
    now = _PACKED.get()
    if now is None or attention_mask is not None:  # another forward of the model, in another thread
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
    apart = [_Apart.apply(x.squeeze(0).transpose(0, 1), *now) for x in (query, key, value)]  # type: ignore[no-untyped-call]
    query, key, value = (x.transpose(1, 2) for x in apart)
    found, _ = sdpa_attention_forward(module, query, key, value, None, **settings)
    joined: Tensor = _Joined.apply(found, *now)  # type: ignore[no-untyped-call]
    return joined.unsqueeze(0), None


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    return sdpa_mask(*args, **kwargs) if _PACKED.get() is None else None


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, _mask)


class _Apart(torch.autograd.Function):
    """[tokens heads dim] to [rows seq heads dim]. Values read at padding get no gradient, so no gradients are summed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, place: Tensor, order: Tensor, rows: int) -> Tensor:
        ctx.save_for_backward(order)
        return x.index_select(0, place).view(rows, -1, *x.shape[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (order,) = ctx.saved_tensors
        return gradient.flatten(0, 1).index_select(0, order), None, None, None


class _Joined(torch.autograd.Function):
    """[rows seq heads dim] to [tokens heads dim]; padding gets a gradient of zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, place: Tensor, order: Tensor, rows: int) -> Tensor:
        ctx.save_for_backward(order)
        ctx.shape = x.shape
        return x.flatten(0, 1).index_select(0, order)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (order,) = ctx.saved_tensors
        found = gradient.new_zeros(ctx.shape[0] * ctx.shape[1], *ctx.shape[2:])
        return found.index_copy_(0, order, gradient).view(ctx.shape), None, None, None
