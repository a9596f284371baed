"""Checks that a tokenizer fits its model: every id needs an embedding."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from torch import nn
from transformers import PreTrainedTokenizerBase

from scopewise.data.prompt import Encoded
from scopewise.errors import ModelError
from scopewise.models.architecture import unwrap, vocabulary_size

_POSITIONS = ("wpe", "embed_positions", "position_embeddings", "positions_embed", "position_embedding")
"""What the library calls embeddings of positions."""


def padding_id(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the padding id: the tokenizer's, or 0 if the model has no embedding for that one.

    Padding is never attended to and has no loss, so any id with an embedding will do.
    """
    wanted = tokenizer.pad_token_id
    return wanted if isinstance(wanted, int) and 0 <= wanted < vocabulary_size(model) else 0


_ADVICE = "take the model's own tokenizer, or resize_token_embeddings before saving the model"


def check_vocabulary(model: nn.Module, tokenizer: PreTrainedTokenizerBase, items: Iterable[Encoded]) -> None:
    """Check a model that has no engine yet: `check_tokenizer`, then `check_rows`."""
    check_tokenizer(model, tokenizer)
    check_rows(model, tokenizer, items)


def check_tokenizer(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ModelError if ordinary tokens have no embedding, which means that the tokenizer belongs to another model.

    Special tokens without an embedding are fine as long as no row has them (an added padding token, an image token of a
    text-only model).
    """
    size = vocabulary_size(model)
    special = set(tokenizer.all_special_ids) | {
        i for i, token in tokenizer.added_tokens_decoder.items() if token.special
    }
    if len(tokenizer) > size:
        beyond = [i for i in range(size, len(tokenizer)) if i not in special]
        if beyond:
            raise ModelError(
                f"model: its vocabulary has {size} tokens, but its tokenizer has ids up to {max(beyond)}; {_ADVICE}"
            )


def check_rows(model: nn.Module, tokenizer: PreTrainedTokenizerBase, items: Iterable[Encoded]) -> None:
    """Raise ModelError if rows have tokens without an embedding, or are longer than a model's learned positions.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        items: Rows that are to be forwarded.
    """
    size, items = vocabulary_size(model), list(items)
    largest = max((max((*item.prompt_ids, *item.answer_ids), default=0) for item in items), default=0)
    if largest >= size:
        token = tokenizer.convert_ids_to_tokens(largest)
        raise ModelError(f"model: its vocabulary has {size} tokens, but rows contain id {largest} ({token}); {_ADVICE}")
    longest, positions = max(items, key=len, default=None), _positions(model)
    if longest is not None and positions is not None and len(longest) > positions:
        raise ModelError(
            f"model: it has learned positions for {positions} tokens, but {longest.row.origin} has {len(longest)}; "
            f"set data.max_length={positions} with data.over_length=drop, shorten the row, or take another model"
        )


def _positions(model: nn.Module) -> int | None:
    """Return how many positions a model has an embedding for; None if positions are computed."""
    inner = unwrap(model)
    words = inner.get_input_embeddings()  # type: ignore[operator]
    sizes = [
        module.num_embeddings - int(getattr(module, "offset", 0))  # OPT's first two are none
        for name, module in inner.named_modules()
        if isinstance(module, nn.Embedding) and module is not words and name.rpartition(".")[2] in _POSITIONS
    ]
    return min(sizes, default=None)


@contextlib.contextmanager
def loadable_padding(model: nn.Module) -> Iterator[None]:
    """Keep a padding id without an embedding out of the model's configuration; otherwise the model could not be loaded.

    `transformers.Trainer` writes the tokenizer's into it when training begins.
    """
    inner = unwrap(model)
    before = [(config, config.pad_token_id) for config in (inner.config, inner.generation_config) if config is not None]
    try:
        yield
    finally:
        for config, pad_id in before:
            if config.pad_token_id is not None and config.pad_token_id >= vocabulary_size(model):
                config.pad_token_id = pad_id
