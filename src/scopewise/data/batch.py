"""Batches: padded input ids, and the flat answer positions at which logits are wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
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

    They form a tree: tokens with which several answers begin stand in it once. An answer's last token predicts no label, so it
    is left out. Answers of one token add no token and need no mask. Several prompts share a forward, too, as far as they begin
    alike: the rest of a prompt is then given at the beginning of each of its answers.

    Attributes:
        prompt: Ids before the answers; at least one.
        answers: Ids of each answer, after those of its prompt that are not in `prompt`.
        given: How many ids of each answer belong to its prompt, and are not predicted; empty if none do.
    """

    prompt: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]
    given: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def predicted(self) -> list[tuple[int, ...]]:
        """The ids of each answer that are predicted."""
        return [answer[given:] for answer, given in self._branches]

    @property
    def pairs(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Each whole prompt with its answer."""
        return [(self.prompt + answer[:given], answer[given:]) for answer, given in self._branches]

    @property
    def positions(self) -> list[int]:
        """The places in the row that predict a token, answer after answer."""
        last = (
            len(self.prompt) - 1
        )  # it predicts the first token of every answer, and each token of a path the next one
        places = zip(self.paths, self._branches, strict=True)
        return [place for path, (_, given) in places for place in (last, *path)[given:]]

    @property
    def _branches(self) -> Iterator[tuple[tuple[int, ...], int]]:
        return zip(self.answers, self.given or (0,) * len(self.answers), strict=True)

    @property
    def ids(self) -> list[int]:
        """The tokens of the row."""
        return self._tree[0]

    @property
    def paths(self) -> list[list[int]]:
        """The places in the row of each answer's tokens, without its last."""
        return self._tree[1]

    @property
    def branches(self) -> bool:
        """Whether some tokens do not follow all that stand before them, so that a mask is needed."""
        return len(self) > len(self.prompt) + max(map(len, self.paths), default=0)

    @property
    def parents(self) -> list[int]:
        """The place of the token before each token after the prompt."""
        return self._tree[2]

    @cached_property
    def _tree(self) -> tuple[list[int], list[list[int]], list[int]]:
        ids, paths, parents = list(self.prompt), list[list[int]](), list[int]()
        follows: dict[tuple[int, int], int] = {}  # place and next token → the place of that
        for answer in self.answers:
            path, before = list[int](), len(self.prompt) - 1
            for token in answer[:-1]:
                place = follows.setdefault((before, token), len(ids))
                if place == len(ids):
                    ids.append(token)
                    parents.append(before)
                path.append(place)
                before = place
            paths.append(path)
        return ids, paths, parents


def collate_units(units: Sequence[Unit], pad_id: int = 0) -> Batch:
    """Pad units to the longest, and list the answer positions; `row` counts answers through all units.

    The positions of each answer continue those of the prompt, and each of its tokens attends to the prompt and to the answer's
    tokens up to itself. If no unit branches, the mask is the usual one; otherwise it is [batch 1 seq seq] and is added to the
    attention scores.
    """
    answers = [answer for unit in units for answer in unit.predicted]
    input_ids, attention_mask = side_by_side([unit.ids for unit in units], pad_id)
    seq = input_ids.shape[1]
    row, _ = _answer_tokens(answers)
    batch = {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "position": torch.tensor([i * seq + place for i, unit in enumerate(units) for place in unit.positions]),
        "label": torch.tensor([*chain.from_iterable(answers)]),
        "row": row,
    }
    if any(unit.branches for unit in units):
        seen, places = _tree_mask(units, attention_mask)
        batch["attention_mask"] = torch.where(seen, 0.0, torch.finfo(torch.float32).min).unsqueeze(1)
        batch["position_ids"] = places
    return batch


def _tree_mask(units: Sequence[Unit], attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return which tokens each token attends to, bool [batch seq seq], and position ids [batch seq]."""
    size, seq = attention_mask.shape
    # Padding attends to itself, since a row of the mask without any entry gives NaN.
    seen = np.broadcast_to(np.eye(seq, dtype=bool), (size, seq, seq)).copy()
    places = np.zeros((size, seq), dtype=np.int64)  # padding does not count
    for unit, sees, at in zip(units, seen, places, strict=True):
        prompt = len(unit.prompt)
        sees[:prompt, :prompt] = np.tri(prompt, dtype=bool)
        at[:prompt] = np.arange(prompt)
        for place, before in enumerate(
            unit.parents, start=prompt
        ):  # a token sees what the one before it sees, and itself
            sees[place] |= sees[before]
            at[place] = at[before] + 1
    return torch.from_numpy(seen), torch.from_numpy(places)


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
