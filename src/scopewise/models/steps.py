"""Step-by-step generation, from a key-value cache where the model has a correct one, else from whole rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from scopewise.data.batch import Batch, side_by_side, to_device
from scopewise.errors import ModelError
from scopewise.models.flops import uncounted
from scopewise.models.forward import Forward


class Steps:
    """A batch of rows that grow by a token per step, and the logits after the last token of each.

    Args:
        forward: Of a model in evaluation mode.
        prompts: Ids of each prompt.
        copies: Rows per prompt.
        pad: Padding id.
        cached: Whether to use a key-value cache; None: where the model's abilities allow it.

    Attributes:
        logits: [rows vocab], float32.
    """

    def __init__(
        self,
        forward: Forward,
        prompts: Sequence[tuple[int, ...]],
        copies: int = 1,
        pad: int = 0,
        *,
        cached: bool | None = None,
    ) -> None:
        self._forward, self._pad, self._device = forward, pad, forward.device
        self._cached = forward.abilities.caches if cached is None else cached
        if not self._cached:
            self._rows = [list(prompt) for prompt in prompts for _ in range(copies)]
            self.logits = self._from_whole_rows()
            return
        width = max(map(len, prompts))
        ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts], device=self._device)
        self._mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=self._device)
        self._position = (self._mask.cumsum(-1) - 1).clamp(min=0)
        self._cache = DynamicCache(config=forward.inner.config)
        self.logits = self._from_cache(ids)
        if copies > 1:
            self._cache.batch_repeat_interleave(copies)
            self.logits, self._mask, self._position = (
                t.repeat_interleave(copies, 0) for t in (self.logits, self._mask, self._position)
            )

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these, given by their index in the batch."""
        if not self._cached:
            self._rows = [self._rows[i] for i in rows]
            return
        kept = torch.tensor(rows, device=self._device)
        self._cache.batch_select_indices(kept)
        self._mask, self._position = self._mask[kept], self._position[kept]

    def read(self, tokens: Tensor) -> None:
        """Append a token [rows] to each row, and compute the logits after it."""
        if not self._cached:
            for row, token in zip(self._rows, tokens.tolist(), strict=True):
                row.append(token)
            self.logits = self._from_whole_rows()
            return
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), 1)], dim=1)
        self._position = self._position[:, -1:] + 1
        self.logits = self._from_cache(tokens.unsqueeze(1))

    def _from_cache(self, ids: Tensor) -> Tensor:
        # The head runs on the last column alone.
        with self._forward.head.register_forward_pre_hook(lambda _, args: (args[0][:, -1:], *args[1:])):
            output = self._forward.model(
                input_ids=ids,
                attention_mask=self._mask,
                position_ids=self._position,
                past_key_values=self._cache,
                use_cache=True,
            )
        return _numbers(output.logits[:, -1])

    def _from_whole_rows(self) -> Tensor:
        ids, mask = side_by_side(self._rows, self._pad)
        last = torch.arange(len(ids)) * ids.shape[1] + mask.sum(-1) - 1
        batch: Batch = {"input_ids": ids, "attention_mask": mask, "position": last}
        with uncounted():  # as little as what a cache takes
            return _numbers(self._forward.logits(to_device(batch, self._device)))


def _numbers(logits: Tensor) -> Tensor:
    logits = logits.float()
    if bool(logits.isnan().any()):  # its arg-max would be some token, and the text would look like one
        raise ModelError("generate: a logit is not a number; check the model's weights and dtype")
    return logits
