"""Batches: padded input ids, and the flat answer positions at which logits are wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from scopewise.data.prompt import Encoded

Batch = dict[str, Tensor]
"""A plain dict, so that accelerate can move it. Keys and shapes:

`input_ids`, `attention_mask`  [batch seq]  right-padded to the longest row of this batch
`position`                     [tokens]     index into the flattened [batch · seq] of the position that predicts a token
`label`                        [tokens]     the answer token predicted there
`row`                          [tokens]     which sequence of the batch it belongs to
"""


def collate(items: Sequence[Encoded], labels: Sequence[tuple[int, ...]] | None = None, pad_id: int = 0) -> Batch:
    """Pad examples to the longest of them and list their answer positions.

    Right padding under a causal mask cannot reach an answer token, so `pad_id` changes no value.

    Args:
        items: Tokenised rows.
        labels: What is to be predicted, one label per answer token; None wants the answers themselves.
        pad_id: What fills the rest of `input_ids`.
    """
    seq = max(len(item) for item in items)
    input_ids = torch.full((len(items), seq), pad_id, dtype=torch.long)
    attention_mask = torch.zeros((len(items), seq), dtype=torch.long)
    position: list[int] = []
    label: list[int] = []
    row: list[int] = []
    for i, (item, wanted) in enumerate(zip(items, labels or [item.answer_ids for item in items], strict=True)):
        input_ids[i, : len(item)] = torch.tensor(item.prompt_ids + item.answer_ids)
        attention_mask[i, : len(item)] = 1
        first = i * seq + len(item.prompt_ids) - 1  # the last prompt token predicts the first answer token
        position.extend(range(first, first + len(item.answer_ids)))
        label.extend(wanted)
        row.extend([i] * len(item.answer_ids))
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "position": torch.tensor(position),
        "label": torch.tensor(label),
        "row": torch.tensor(row),
    }


@dataclass(frozen=True)
class Unit:
    """A prompt and the answers that share its forward: one row of the model's input.

    An answer's last token predicts nothing that is wanted and is left out of it: answers of one token cost no token at
    all, and need no mask of their own.

    Attributes:
        prompt: Ids before the answers; at least one.
        answers: Ids of each answer.
    """

    prompt: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.prompt) + sum(len(answer) - 1 for answer in self.answers)


def collate_units(units: Sequence[Unit], pad_id: int = 0) -> Batch:
    """Pad units to the longest, and list the answer positions; `row` counts answers through all units.

    An answer's positions follow the prompt's, and it sees the prompt and itself alone, as if the others were not there.
    Where no unit has several answers in its input the mask is the usual one; else it is [batch 1 seq seq], added to the scores.
    """
    lengths = [len(unit) for unit in units]
    seq, shared = max(lengths), any(sum(len(answer) > 1 for answer in unit.answers) > 1 for unit in units)
    input_ids: list[list[int]] = []
    position_ids: list[list[int]] = []
    owners: list[list[int]] = []  # of a token: the answer, -1 the prompt, -2 padding
    position: list[int] = []
    label: list[int] = []
    row: list[int] = []
    answers = 0
    for i, unit in enumerate(units):
        start = len(unit.prompt)
        ids, places, owner = list(unit.prompt), list(range(start)), [-1] * start
        for a, answer in enumerate(unit.answers):
            end = start + len(answer) - 1
            ids += answer[:-1]
            places += range(len(unit.prompt), len(unit.prompt) + len(answer) - 1)
            owner += [a] * (len(answer) - 1)
            # The last prompt token predicts the first token of every answer.
            position.extend([i * seq + len(unit.prompt) - 1, *range(i * seq + start, i * seq + end)])
            label.extend(answer)
            row.extend([answers] * len(answer))
            answers += 1
            start = end
        fill = seq - len(ids)
        input_ids.append(ids + [pad_id] * fill)
        position_ids.append(places + [0] * fill)
        owners.append(owner + [-2] * fill)
    of = torch.tensor(owners)
    batch = {
        "input_ids": torch.tensor(input_ids),
        "attention_mask": (of > -2).long(),
        "position": torch.tensor(position),
        "label": torch.tensor(label),
        "row": torch.tensor(row),
    }
    if shared:
        same = of.unsqueeze(2) == of.unsqueeze(1)
        seen = (same | (of == -1).unsqueeze(1)) & torch.ones(seq, seq, dtype=torch.bool).tril()
        seen |= torch.eye(seq, dtype=torch.bool)  # padding sees itself: a row without any would be NaN
        batch["attention_mask"] = torch.where(seen, 0.0, torch.finfo(torch.float32).min).unsqueeze(1)
        batch["position_ids"] = torch.tensor(position_ids)
    return batch


BUSY_TOKENS = 512
"""Tokens from which a batch's matrix products run near the device's rate: below, reading the weights takes longer."""


def length_batches(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Yield lists of example indices, longest first, whose padded size (rows x longest) stays within `max_tokens`.

    A row longer than `max_tokens` gets a batch of its own. Longest first, so that memory fails at once or not at all. A batch
    that keeps a device busy already takes no rows that would be padding for more than a fifth.
    """
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        longest = lengths[batch[0]] if batch else 0
        full = longest * (len(batch) + 1) > max_tokens
        if batch and (full or (longest * len(batch) >= BUSY_TOKENS and lengths[i] < 0.8 * longest)):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def select_rows(batch: Batch, keep: Int[Tensor, "kept"]) -> Batch:
    """Return the batch of the sequences `keep` (ascending), trimmed to their own longest; answer order is kept."""
    seq = batch["input_ids"].shape[1]
    new_row = torch.full((batch["input_ids"].shape[0],), -1, dtype=torch.long, device=keep.device)
    new_row[keep] = torch.arange(len(keep), device=keep.device)
    token = new_row[batch["row"]] >= 0
    attention_mask = batch["attention_mask"][keep]
    width = int(attention_mask.sum(-1).max())
    row = new_row[batch["row"][token]]
    return {
        "input_ids": batch["input_ids"][keep, :width],
        "attention_mask": attention_mask[:, :width],
        "position": row * width + batch["position"][token] % seq,
        "label": batch["label"][token],
        "row": row,
    }
