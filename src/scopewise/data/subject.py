"""Which tokens of a row name what the row is about."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from scopewise.data.instances import instance_of
from scopewise.data.prompt import Encoded, Prompt
from scopewise.data.rows import Row
from scopewise.errors import DataError

logger = logging.getLogger("scopewise")


def subject_of(row: Row) -> str:
    """Return the row's instance if its question names it, else the longest name in the question, else the question."""
    return row.instance if row.instance and _word(row.instance).search(row.question) else instance_of("", row.question)


def subject_tokens(
    items: Sequence[Encoded], tokenizer: PreTrainedTokenizerBase, prompt: Prompt
) -> list[tuple[int, ...]]:
    """Return, for each row, which of its tokens hold a character of its subject, anywhere in prompt and answer.

    They are indices into prompt and answer together, ascending. With a tokenizer without offsets, the subject's own tokens
    are searched for instead. Plain text, which has no question, has no subject. A warning counts rows without one.

    Args:
        items: Tokenised rows.
        tokenizer: Theirs.
        prompt: Their format.

    Raises:
        DataError: no row has one.
    """
    special = prompt.name != "chat"
    found: list[tuple[int, ...]] = []
    for item in items:
        subject = subject_of(item.row)
        if not subject:
            found.append(())
            continue
        text = prompt.text(item.row, tokenizer) + item.row.answer
        if tokenizer.is_fast:
            spans = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)["offset_mapping"]
            names = [match.span() for match in _word(subject).finditer(text)]
            inside = [i for i, (a, b) in enumerate(spans) if any(a < end and start < b for start, end in names)]
        else:
            forms = [tokenizer(form + subject, add_special_tokens=False)["input_ids"] for form in ("", " ")]
            ids = [*item.prompt_ids, *item.answer_ids]
            inside = sorted({i for form in forms for i in _within(ids, form)})
        found.append(tuple(i for i in inside if i < len(item)))
    without = [item.row.origin for item, tokens in zip(items, found, strict=True) if not tokens]
    if len(without) == len(items):
        raise DataError(
            f"unlearn.method: it disturbs the subject of a question, and none of {len(items)} forget rows has one; give them "
            "questions, with the name of the row's 'instance' in them, or choose another method"
        )
    if without:
        logger.warning(
            f"{len(without)} of {len(items)} forget rows have no subject whose tokens could be disturbed ({_few(without)})"
        )
    return found


def _few(origins: Sequence[str]) -> str:
    return ", ".join(origins[:5]) + (f" and {len(origins) - 5} more" if len(origins) > 5 else "")


def _word(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")


def _within(ids: Sequence[int], part: Sequence[int]) -> list[int]:
    """Return the indices of `ids` at which `part` stands."""
    starts = [i for i in range(len(ids) - len(part) + 1) if part and list(ids[i : i + len(part)]) == list(part)]
    return [i for start in starts for i in range(start, start + len(part))]
