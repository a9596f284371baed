"""Rows that grow by a token at a time: from a cache where the model keeps one rightly, from whole rows where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from scopewise.data.batch import Batch
from scopewise.errors import ModelError
from scopewise.models.forward import answer_logits, device_of, output_embeddings, unwrapped
from scopewise.models.growing import growing_cache
from scopewise.models.trial import counts_columns, reaching_far, same
from scopewise.models.work import uncounted


class Steps:
    """Rows of a batch, and the logits after the last token of each.

    Args:
        model: A causal LM in evaluation mode.
        prompts: Ids that the rows begin with.
        copies: Rows of each prompt, one after the other.
        pad: What fills shorter rows.
        cached: Whether keys and values of what was read are kept; None asks `keeps_a_cache`.

    Attributes:
        logits: [rows vocab], float32.
    """

    def __init__(
        self,
        model: nn.Module,
        prompts: Sequence[tuple[int, ...]],
        copies: int = 1,
        pad: int = 0,
        *,
        cached: bool | None = None,
    ) -> None:
        self._model, self._pad, self._device = model, pad, device_of(model)
        self._cached = keeps_a_cache(model) if cached is None else cached
        if not self._cached:
            self._rows = [list(prompt) for prompt in prompts for _ in range(copies)]
            self.logits = self._from_whole_rows()
            return
        width = max(map(len, prompts))
        ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts], device=self._device)
        self._mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=self._device)
        self._position = (self._mask.cumsum(-1) - 1).clamp(min=0)
        self._cache = growing_cache(unwrapped(model).config)
        self.logits = self._from_cache(ids)
        if copies > 1:
            self._cache.batch_repeat_interleave(copies)
            self.logits, self._mask, self._position = (
                t.repeat_interleave(copies, 0) for t in (self.logits, self._mask, self._position)
            )

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the rows alone, named by their places in the batch."""
        if not self._cached:
            self._rows = [self._rows[i] for i in rows]
            return
        kept = torch.tensor(rows, device=self._device)
        self._cache.batch_select_indices(kept)
        self._mask, self._position = self._mask[kept], self._position[kept]

    def read(self, tokens: Tensor) -> None:
        """Let each row read a token [rows], and make the logits after it."""
        if not self._cached:
            for row, token in zip(self._rows, tokens.tolist(), strict=True):
                row.append(token)
            self.logits = self._from_whole_rows()
            return
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), 1)], dim=1)
        self._position = self._position[:, -1:] + 1
        self.logits = self._from_cache(tokens.unsqueeze(1))

    def _from_cache(self, ids: Tensor) -> Tensor:
        handle = output_embeddings(self._model).register_forward_pre_hook(
            lambda _, args: (args[0][:, -1:], *args[1:])  # the head acts at the last column alone
        )
        try:
            output = self._model(
                input_ids=ids,
                attention_mask=self._mask,
                position_ids=self._position,
                past_key_values=self._cache,
                use_cache=True,
            )
        finally:
            handle.remove()
        return _numbers(output.logits[:, -1])

    def _from_whole_rows(self) -> Tensor:
        lengths = torch.tensor([len(row) for row in self._rows])
        width = int(lengths.max())
        batch: Batch = {
            "input_ids": torch.tensor([row + [self._pad] * (width - len(row)) for row in self._rows]),
            "attention_mask": (torch.arange(width) < lengths.unsqueeze(1)).long(),
            "position": torch.arange(len(lengths)) * width + lengths - 1,
        }
        with uncounted():  # as little as what a cache takes
            return _numbers(answer_logits(self._model, {name: x.to(self._device) for name, x in batch.items()}))


def _numbers(logits: Tensor) -> Tensor:
    logits = logits.float()
    if bool(logits.isnan().any()):  # its arg-max would be some token, and the text would look like one
        raise ModelError("generate: a logit is not a number; check the model's weights and dtype")
    return logits


_KEEPS: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def keeps_a_cache(model: nn.Module) -> bool:
    """Return whether a model goes on from a cache as from whole rows, beside shorter rows and after some were left out.

    It is tried once per model, on made-up ids whose states reach far. Models that keep a state of their own, or whose state
    reads padding on the left, fail the trial; each token is then made from whole rows.
    """
    inner: Any = unwrapped(model)
    if inner not in _KEEPS:
        _KEEPS[inner] = not counts_columns(inner) and _goes_on(inner)
    return _KEEPS[inner]


def _goes_on(model: nn.Module) -> bool:
    vocab_size = int(output_embeddings(model).weight.shape[0])  # type: ignore
    ids = [(7 * i + 4) % vocab_size for i in range(16)]
    prompts = [tuple(ids[:3]), tuple(ids[3:9]), tuple(ids[9:13])]
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), reaching_far(model):
            # Whole rows first: they fix how far the states reach.
            whole, cached = (Steps(model, prompts, 2, cached=kept) for kept in (False, True))
            for kept, token in (((0, 1, 2, 3, 4, 5), ids[13]), ((0, 3, 4), ids[14]), ((0, 2), ids[15])):
                if not same(cached.logits, whole.logits):
                    return False
                for steps in (whole, cached):
                    steps.keep(kept)
                    steps.read(torch.full((len(kept),), token, device=device_of(model)))
            return same(cached.logits, whole.logits)
    except (ModelError, RuntimeError, ValueError, TypeError, AttributeError, LookupError, NotImplementedError):
        return False
    finally:
        model.train(training)
