"""What a step is made of: forget rows, each with a retain row, in steps of similar length."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from scopewise.data.batch import Batch, collate, select_rows
from scopewise.data.prompt import Encoded
from scopewise.errors import ConfigError

FORGET_GROUP, ALTERNATIVE_GROUP, RETAIN_GROUP = 0, 1, 2


class Rows(Dataset):
    """Forget rows, then retain rows; an item is its index, and `collate` makes a batch of several.

    Attributes:
        forget: The rows to forget.
        retain: The rows to keep.
        labels: What is trained at each answer token of each forget row.
        alternatives: The answers to be preferred, one per forget row; empty where a method has none.
        reference_nll: Of each forget answer, in nats; empty where a method needs none.
        alternative_nll: The same of each alternative.
    """

    def __init__(self, forget: Sequence[Encoded], retain: Sequence[Encoded]) -> None:
        self.forget = list(forget)
        self.retain = list(retain)
        self.labels = [item.answer_ids for item in self.forget]
        self.alternatives: list[Encoded] = []
        self.reference_nll: list[float] = []
        self.alternative_nll: list[float] = []

    def __len__(self) -> int:
        return len(self.forget) + len(self.retain)

    def __getitem__(self, index: int) -> int:
        return index

    def item(self, index: int) -> Encoded:
        """Return the row of an index."""
        return self.forget[index] if index < len(self.forget) else self.retain[index - len(self.forget)]

    def collate(self, indices: Sequence[int], pad_id: int = 0) -> Batch:
        """Return the batch of some rows: forget rows first, then their alternatives, then retain rows.

        Besides the keys of `data.batch.collate`: `index` and `group` of each sequence, and `reference_nll` where known.
        """
        forget = [i for i in indices if i < len(self.forget)]
        retain = [i for i in indices if i >= len(self.forget)]
        others = forget if self.alternatives else []
        items = (
            [self.forget[i] for i in forget] + [self.alternatives[i] for i in others] + [self.item(i) for i in retain]
        )
        labels = [self.labels[i] for i in forget] + [item.answer_ids for item in items[len(forget) :]]
        batch = collate(items, labels, pad_id=pad_id)
        batch["index"] = torch.tensor(forget + others + retain)
        groups = [FORGET_GROUP] * len(forget) + [ALTERNATIVE_GROUP] * len(others) + [RETAIN_GROUP] * len(retain)
        batch["group"] = torch.tensor(groups)
        if self.reference_nll:
            known = [self.reference_nll[i] for i in forget] + [self.alternative_nll[i] for i in others]
            batch["reference_nll"] = torch.tensor(known + [0.0] * len(retain))
        return batch


def part_of(batch: Batch, keep: Tensor) -> Batch:
    """Return the sequences `keep` (ascending) of a batch made by `Rows.collate`."""
    return select_rows(batch, keep) | {k: batch[k][keep] for k in ("index", "group", "reference_nll") if k in batch}


class PairedSampler(Sampler[int]):
    """Order of one epoch: every forget row once, each with a retain row, steps of similar length.

    The i-th forget row of a shuffle is paired with the i-th retain row of another (going round where there are fewer, and
    leaving out other ones each epoch where there are more). Pairs are sorted by length within chunks of 50 steps, then
    the steps are shuffled, as `transformers` groups by length. The order depends on seed and epoch alone.

    Raises:
        ConfigError: retain rows, and an odd number of rows per step.
    """

    def __init__(self, rows: Rows, rows_per_step: int, seed: int) -> None:
        if rows.retain and rows_per_step % 2:
            raise ConfigError(
                f"batch size: {rows_per_step} rows per step; a step pairs forget with retain rows, so it must be even"
            )
        self.rows = rows
        self.per_step = rows_per_step // (2 if rows.retain else 1)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows.forget) * (2 if self.rows.retain else 1)

    def __iter__(self) -> Iterator[int]:
        rng = random.Random(f"{self.seed}/{self.epoch}")
        forget = rng.sample(range(len(self.rows.forget)), len(self.rows.forget))
        if self.rows.retain:
            offset, kept = len(self.rows.forget), len(self.rows.retain)
            rounds = math.ceil(len(forget) / kept)
            retain = [offset + i for _ in range(rounds) for i in rng.sample(range(kept), kept)]
            groups = [(f, r) for f, r in zip(forget, retain, strict=False)]
        else:
            groups = [(f,) for f in forget]  # type: ignore[misc]
        length = {g: max(len(self.rows.item(i)) for i in g) for g in groups}
        chunk = 50 * self.per_step
        steps = []
        for start in range(0, len(groups), chunk):
            ordered = sorted(groups[start : start + chunk], key=lambda g: -length[g])
            steps += [ordered[i : i + self.per_step] for i in range(0, len(ordered), self.per_step)]
        whole = [s for s in steps if len(s) == self.per_step]
        rng.shuffle(whole)
        for step in whole + [s for s in steps if len(s) < self.per_step]:
            # Longest first, so that micro-batches of a step are of similar length too; pairs stay adjacent.
            for group in step:
                yield from group
