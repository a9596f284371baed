"""Batches: padded input ids, and the flat answer positions at which logits are wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from jaxtyping import Int
from torch import Tensor

from scopewise.data.prompt import Encoded

Batch = dict[str, Tensor]
"""A plain dict, so that accelerate can move it. Keys and shapes:

`input_ids`, `attention_mask`  [batch seq]  right-padded to the longest row of this batch, without what nothing reads
`position`                     [tokens]     index into the flattened [batch · seq] of the position that predicts a token
`label`                        [tokens]     the answer token predicted there
`row`                          [tokens]     which sequence of the batch it belongs to
"""


def collate(
    items: Sequence[Encoded],
    labels: Sequence[tuple[int, ...]] | None = None,
    pad_id: int = 0,
    *,
    last: bool = False,
) -> Batch:
    """Pad examples to the longest of them and list their answer positions; an answer's last token is left out.

    Right padding under a causal mask cannot reach an answer token, so `pad_id` changes no value.

    Args:
        items: Tokenised rows.
        labels: The labels, one per answer token; None for the answers themselves.
        pad_id: The id that fills the rest of `input_ids`.
        last: Whether to include an answer's last token. It predicts nothing; only hidden states at that token need it.
    """
    answers = [item.answer_ids for item in items]
    input_ids, attention_mask = side_by_side(
        [i.prompt_ids + (i.answer_ids if last else i.answer_ids[:-1]) for i in items], pad_id
    )
    starts = [i * input_ids.shape[1] + len(item.prompt_ids) for i, item in enumerate(items)]
    row, within = _answer_tokens(answers)
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        # The last prompt token predicts the first answer token.
        "position": torch.tensor(starts)[row] + within - 1,
        "label": torch.tensor([*chain.from_iterable(labels or answers)]),
        "row": row,
    }


def side_by_side(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Return ids [batch seq], padded on the right, and 1 where a token is."""
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)
    ids = torch.full(mask.shape, pad_id)
    ids[mask] = torch.tensor([*chain.from_iterable(rows)])
    return ids, mask.long()


def _answer_tokens(answers: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
    """Return, for each token of several answers, the index of its answer and its index in it; both [tokens]."""
    counts = torch.tensor([len(answer) for answer in answers])
    row = torch.arange(len(answers)).repeat_interleave(counts)
    return row, torch.arange(len(row)) - (counts.cumsum(0) - counts)[row]


@dataclass(frozen=True)
class Unit:
    """A prompt and the answers that share its forward: one row of the model's input.

    An answer's last token predicts no label, so it is left out of the input. Answers of one token add no token to it and
    need no mask.

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

    The positions of each answer continue those of the prompt, and each attends only to the prompt and itself. If no unit
    has several answers in its input, the mask is the usual one; otherwise it is [batch 1 seq seq] and is added to the
    attention scores.
    """
    answers = [answer for unit in units for answer in unit.answers]
    input_ids, attention_mask = side_by_side(
        [(*unit.prompt, *chain.from_iterable(answer[:-1] for answer in unit.answers)) for unit in units], pad_id
    )
    batch_size, seq = input_ids.shape
    starts, ends = [], []  # per answer: where its own tokens start, and where its prompt ends
    for i, unit in enumerate(units):
        start = i * seq + len(unit.prompt)
        ends += [start] * len(unit.answers)
        for answer in unit.answers:
            starts.append(start)
            start += len(answer) - 1
    row, within = _answer_tokens(answers)
    # The last prompt token predicts the first token of every answer.
    position = torch.where(within == 0, torch.tensor(ends)[row], torch.tensor(starts)[row] + within) - 1
    batch = {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "position": position,
        "label": torch.tensor([*chain.from_iterable(answers)]),
        "row": row,
    }
    if any(sum(len(answer) > 1 for answer in unit.answers) > 1 for unit in units):
        # Owner of each token: an answer, the prompt (-1) or padding (-2). The tokens of an answer are those that predict its
        # second and later ones.
        of = torch.where(attention_mask == 1, -1, -2)
        places = torch.arange(seq).repeat(batch_size) * attention_mask.flatten()  # padding does not count
        later = position[within > 0]
        of.view(-1)[later] = row[within > 0]
        places[later] = (torch.tensor(ends)[row] % seq + within - 1)[within > 0]
        same = of.unsqueeze(2) == of.unsqueeze(1)
        seen = (same | (of == -1).unsqueeze(1)) & torch.ones(seq, seq, dtype=torch.bool).tril()
        seen |= torch.eye(
            seq, dtype=torch.bool
        )  # padding attends to itself, since a row of the mask without any entry gives NaN
        batch["attention_mask"] = torch.where(seen, 0.0, torch.finfo(torch.float32).min).unsqueeze(1)
        batch["position_ids"] = places.view(batch_size, seq)
    return batch


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return the batch on `device`."""
    return {name: value.to(device) for name, value in batch.items()}


BUSY_TOKENS = 512
"""Batch size in tokens from which matrix products run near the device's peak; below, reading the weights dominates."""


def length_batches(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Yield lists of example indices, longest first, whose padded size (rows x longest) stays within `max_tokens`.

    A row longer than `max_tokens` gets a batch of its own. Longest first, so that memory fails at once or not at all. Once
    a batch is large enough to keep a device busy, it takes no further rows that would consist of more than a fifth padding.
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
    subject = {"subject": batch["subject"][keep, : width + 1]} if "subject" in batch else {}
    return subject | {
        "input_ids": batch["input_ids"][keep, :width],
        "attention_mask": attention_mask[:, :width],
        "position": row * width + batch["position"][token] % seq,
        "label": batch["label"][token],
        "row": row,
    }
