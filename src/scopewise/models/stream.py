"""Streaming one answer token by token, with each token's probability and the most probable alternatives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from scopewise.models.forward import Forward
from scopewise.models.generate import Draws, end_ids, next_tokens
from scopewise.models.steps import Steps

_INCOMPLETE = "\ufffd"
"""What a tokenizer decodes an incomplete character to."""


@dataclass(frozen=True)
class Token:
    """A token of an answer.

    Attributes:
        text: The characters that it completes, possibly none; the texts of all tokens together are the answer.
        probability: Under the model (temperature 1, whole vocabulary), however the token was chosen, 0-1.
        others: The most probable tokens at this position with their probabilities, highest first.
    """

    text: str
    probability: float
    others: tuple[tuple[str, float], ...]


def stream(
    forward: Forward,
    tokenizer: PreTrainedTokenizerBase,
    prompt: tuple[int, ...],
    max_new_tokens: int = 64,
    *,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    others: int = 3,
) -> Iterator[Token]:
    """Continue one prompt, a token per `next`; with top_p 1 these are the tokens that `generate` gives.

    Computation happens only inside `next`, so several streams may take turns on one model. The caller sets evaluation mode
    and the active adapter.

    Args:
        forward: Of a causal LM in evaluation mode.
        tokenizer: Decodes what is generated; special tokens are left out.
        prompt: Its ids.
        max_new_tokens: Maximum number of new tokens.
        temperature: 0 takes the most probable token; above it, tokens are drawn.
        top_p: Draws only from the most probable tokens, as many as are needed to reach this share of the probability.
        seed: Of the drawing.
        others: How many of the most probable tokens each `Token` names.

    Yields:
        Tokens, without the end of sequence.
    """
    ends = end_ids(forward.model, tokenizer)
    draws = Draws(seed, prompt, 0, temperature)
    steps, token = None, torch.empty(0)
    chosen: list[int] = []
    shown = ""
    for _ in range(max_new_tokens):
        with torch.inference_mode():
            if steps is None:
                steps = Steps(forward, [prompt])
            else:
                steps.read(token)
            logits = steps.logits
            kept = nucleus(logits, temperature, top_p) if temperature > 0 else logits
            token = next_tokens(kept, [draws])
            probability = logits.softmax(-1)[0]
            top = probability.topk(min(others, len(probability)))
        chosen.append(int(token))
        if chosen[-1] in ends:
            return
        text = cast(str, tokenizer.decode(chosen, skip_special_tokens=True))
        whole = text[: len(text.rstrip(_INCOMPLETE))]
        # Some decoders remove white space before the next token; text that was yielded stays.
        new, shown = (whole[len(shown) :], whole) if whole.startswith(shown) else ("", shown)
        named = tuple(
            (cast(str, tokenizer.decode([i])), p)
            for i, p in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        )
        yield Token(new, float(probability[chosen[-1]]), named)


def nucleus(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    """Set the logits to -inf except for the most probable tokens whose probabilities together reach `top_p`.

    Args:
        logits: Rows over the vocabulary.
        temperature: The probabilities are those at this temperature, as the draw's are.
        top_p: In (0, 1]; 1 leaves everything.
    """
    if top_p >= 1:
        return logits
    order = logits.argsort(-1, descending=True)
    sorted_probability = (logits.double() / temperature).softmax(-1).gather(-1, order)
    # A token is out where those before it reach top_p already; the first one is always in.
    out = sorted_probability.cumsum(-1) - sorted_probability >= top_p
    return logits.masked_fill(torch.zeros_like(out).scatter(-1, order, out), float("-inf"))
