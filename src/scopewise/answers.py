"""Answers for the report page: the probability of each token of the true answer, and the generated text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from scopewise.data.prompt import Encoded
from scopewise.metrics.base import Answered

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


def answers_document(
    items: Sequence[Encoded], answered: Sequence[Answered], tokenizer: PreTrainedTokenizerBase
) -> list[dict[str, Any]]:
    """Return one object per row, in order: the row, its answer in tokens with the model's probability of each, and its text.

    Probabilities are those of teacher forcing, rounded to three digits: of each token given the question and the tokens of
    the true answer before it. `generated` is null where nothing was generated.

    Args:
        items: The tokenised rows.
        answered: What the model makes of them, in the same order.
        tokenizer: The tokenizer they were made with.
    """
    pieces: dict[tuple[int, ...], list[str]] = {}
    found = []
    for item, row in zip(items, answered, strict=True):
        count = len(row.log_probs)  # without an appended end of sequence
        ids = item.answer_ids[:count]
        if ids not in pieces:
            pieces[ids] = token_texts(tokenizer, ids)
        found.append(
            {
                "question": row.row.question,
                "answer": row.row.answer,
                "scope": row.row.scope,
                "split": row.row.split,
                "instance": row.row.instance,
                "attribute": row.row.attribute,
                "tokens": pieces[ids],
                "probabilities": [round(math.exp(x), 3) for x in row.log_probs],
                "generated": row.generated,
            }
        )
    return found


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """Return the text that each token adds to the previous ones; joined they are the decoded text.

    A token alone may decode to something else (a leading space is lost, part of a character is none): a character stands
    with the token that ends it.
    """
    prefixes = tokenizer.batch_decode([list(ids[: i + 1]) for i in range(len(ids))], clean_up_tokenization_spaces=False)
    texts, shown = [], ""
    for i, prefix in enumerate(prefixes):
        whole = prefix if i == len(prefixes) - 1 else prefix.rstrip(_UNFINISHED)
        texts.append(whole[len(shown) :] if whole.startswith(shown) else "")
        shown = whole if whole.startswith(shown) else shown
    return texts
