"""Keys and values of what was generated so far, with room ahead, so that a step copies one token's and not all of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

_ROOM = 64
"""Tokens for which room is made at a time."""


class GrowingLayer(DynamicLayer):
    """A layer of a `DynamicCache` that appends in place.

    `DynamicLayer` concatenates: every step reads and writes all keys and values once more, which a small model's long answer
    pays for dearly. Here `keys` and `values` are views of buffers that are longer than they are.
    """

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append, and return everything so far, of shape [batch, heads, tokens, dimension]."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
            self._buffers: list[Tensor] = []
            self._views: list[Tensor] = []
        assert self.keys is not None
        assert self.values is not None
        kept, new = [self.keys, self.values], [key_states, value_states]
        length, total = self.keys.shape[2], self.keys.shape[2] + key_states.shape[2]
        # Whoever selects, repeats or crops rows puts other tensors in the place of our views: then the buffers are not theirs.
        ours = len(self._views) == 2 and all(a is b for a, b in zip(kept, self._views, strict=True))
        if not ours or self._buffers[0].shape[2] < total:
            self._buffers = [
                torch.empty(*x.shape[:2], total + _ROOM, x.shape[3], dtype=x.dtype, device=x.device) for x in new
            ]
            for buffer, old in zip(self._buffers, kept, strict=True):
                buffer[:, :, :length] = old
        for buffer, states in zip(self._buffers, new, strict=True):
            buffer[:, :, length:total] = states
        self._views = [buffer[:, :, :total] for buffer in self._buffers]
        self.keys, self.values = self._views
        return self.keys, self.values


def growing_cache(config: Any) -> DynamicCache:
    """Return an empty cache for a model; layers that are no plain ones (a window, a state) stay as the library has them."""
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
