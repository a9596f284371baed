"""Sampler and collator: each forget row is paired with a retain row, in steps of similar length."""

from __future__ import annotations

import itertools
import logging
import math
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedTokenizerBase

from scopewise.config import DataSection
from scopewise.data.batch import Batch, collate, length_batches, select_rows
from scopewise.data.builtin import read_general
from scopewise.data.instances import instance_names
from scopewise.data.load import general_rows
from scopewise.data.paraphrases import paraphrased
from scopewise.data.prompt import Encoded, Prompt, dropped_rows, encode, warn_of_dropped
from scopewise.data.rows import FORGET, RETAIN, Row, check_scopes
from scopewise.data.subject import subject_tokens
from scopewise.data.tables import as_rows
from scopewise.errors import ConfigError
from scopewise.methods.base import Method
from scopewise.models.engine import Engine
from scopewise.models.preferred_answers import preferred_answers
from scopewise.models.self_questions import self_questions
from scopewise.training.arguments import UnlearningConfig

logger = logging.getLogger("scopewise")

FORGET_GROUP, PREFERRED_GROUP, RETAIN_GROUP, REFUSED_GROUP = 0, 1, 2, 3
"""Of a sequence in a batch: a forget row, its preferred answer, a retain row, a refusal of its question."""


Data = str | Path | Iterable[object]


def read_rows(
    method: Method,
    settings: DataSection,
    tokenizer: PreTrainedTokenizerBase,
    forget: Data,
    retain: Data | None,
    general: Data | None,
) -> tuple[list[Encoded], list[Encoded], list[Encoded]]:
    """Return the tokenised forget rows, retain rows, and rows of the method's retain term.

    Raises:
        ConfigError: the method has a retain term, but there are no rows for it.
        DataError: wrong rows.
    """

    def tokenized(data: Data, read: Callable[[Data], list[Row]]) -> list[Encoded]:
        items = list(data) if not isinstance(data, str | Path) else data
        if isinstance(items, list) and items and isinstance(items[0], Encoded):
            return items  # type: ignore[return-value]
        return encode(read(items), tokenizer, Prompt.of(settings), settings.max_length)

    forgotten = tokenized(forget, partial(as_rows, scope=FORGET))
    retained = [] if retain is None else tokenized(retain, partial(as_rows, scope=RETAIN))
    check_scopes(item.row for item in (*forgotten, *retained))
    if not method.retain_terms:
        return forgotten, retained, []
    parts = []
    if method.retain_data != "general":
        if not retained:
            raise ConfigError("retain_dataset: none given; this method needs retain rows of the same instances")
        parts.append(retained)
    if method.retain_data != "retain":
        parts.append(tokenized(read_general() if general is None else general, general_rows))
    most = max(map(len, parts))  # the shorter of two is repeated, so that the second half is general text
    return forgotten, retained, [item for part in parts for item in itertools.islice(itertools.cycle(part), most)]


class Rows(Dataset):
    """Forget rows, then retain rows; an item is its own index, and `collate` makes a batch of indices.

    Index `-1 - i` repeats row i to fill up a batch: it is forwarded, but has weight 0 in loss and metrics.

    Attributes:
        forget: The rows to forget.
        retain: The rows to keep.
        labels: The label of each answer token of each forget row.
        preferred: Preferred answers, one per forget row; empty if the method has none.
        reference_nll: NLL of each forget answer before unlearning, in nats; empty if the method needs none.
        preferred_nll: The same for each preferred answer.
        retain_preferred: Refusals of the questions of the retain rows; empty if the retain term reads none.
        anchored: Number of retain rows, at their end, on which the model is to stay as it was (KL) whatever the retain term:
            general text beside retain rows, and rows that the model has made itself.
        subject: Which tokens of each forget row name its subject; empty if the method needs none.
    """

    def __init__(self, forget: Sequence[Encoded], retain: Sequence[Encoded], anchored: int = 0) -> None:
        self.forget = list(forget)
        self.retain = list(retain)
        self.labels = [item.answer_ids for item in self.forget]
        self.preferred: list[Encoded] = []
        self.reference_nll: list[float] = []
        self.preferred_nll: list[float] = []
        self.retain_preferred: list[Encoded] = []
        self.anchored = anchored
        self.subject: list[tuple[int, ...]] = []
        self._expanded = False

    def __len__(self) -> int:
        return len(self.forget) + len(self.retain)

    def __getitem__(self, index: int) -> int:
        return index

    def item(self, index: int) -> Encoded:
        """Return the row at an index."""
        return self.forget[index] if index < len(self.forget) else self.retain[index - len(self.forget)]

    def prepare(
        self,
        method: Method,
        engine: Engine,
        args: UnlearningConfig,
        scopes: Mapping[str, Sequence[Encoded]],
        held_out: Collection[str],
    ) -> None:
        """Compute from the model before unlearning what a method trains on: answers, labels, self-questions, NLL.

        Args:
            method: The method.
            engine: Of the model before unlearning.
            args: The training arguments.
            scopes: The rows of the forget and the retain scope, whose questions self-questions vary.
            held_out: Questions that no self-question and no paraphrase may be.
        """

        def answered(items: Sequence[Encoded], source: str, seed: int) -> list[Encoded]:
            texts = preferred_answers(source, items, engine, seed)
            replaced = [replace(item.row, answer=text) for item, text in zip(items, texts, strict=True)]
            # Preferred answers may be longer than the answers; generated ones are at most as long as the longest row.
            return encode(replaced, engine.tokenizer, engine.prompt, 2 * args.max_length)

        if not self._expanded:  # first: what follows is computed for every row
            self._expand(
                engine, args, {scope: [item.row for item in items] for scope, items in scopes.items()}, held_out
            )
        if method.answers_from is not None and not self.preferred:
            others = answered(self.forget, method.answers_from, args.seed)
            if method.trains_on == "preferred":
                self.forget = others
            else:
                self.preferred = others
        if method.needs_refusals and not self.retain_preferred:
            self.retain_preferred = answered(self.retain, "refusal", args.seed + 1)
        if "perturbed_logits" in method.needs:
            self.subject = subject_tokens(self.forget, engine.tokenizer, engine.prompt)
        self.labels = method.relabel(self.forget, engine, args.seed)
        if "reference_nll" in method.needs:
            self.reference_nll = engine.sequence_nll(self.forget, "reference")
            if self.preferred:
                self.preferred_nll = engine.sequence_nll(self.preferred, "reference of preferred answers")

    def _expand(
        self, engine: Engine, args: UnlearningConfig, scopes: Mapping[str, Sequence[Row]], held_out: Collection[str]
    ) -> None:
        """Add given paraphrases, and the rows that the model generates itself, once."""
        self._expanded = True
        if args.expand.paraphrases:
            known = [*held_out, *(row.question for row in scopes[RETAIN])]
            rephrased = paraphrased(scopes[FORGET], known, args.expand.paraphrases)
            kept = engine.encode(rephrased, over_length="drop")
            warn_of_dropped(dropped_rows(rephrased, kept), len(rephrased))
            self.forget += kept
        instances = instance_names([row for part in scopes.values() for row in part])
        for scope, other, most in ((FORGET, RETAIN, args.expand.forget), (RETAIN, FORGET, args.expand.retain)):
            if not most:
                continue
            known = [*held_out, *(row.question for row in scopes[other])]
            how: dict[str, Any] = {"most": most, "max_nll": args.expand.max_nll, "seed": args.seed}
            made = self_questions(scopes[scope], instances, known, engine, **how)
            logger.info("self-questions: %d of the %s scope", len(made), scope)
            if scope == FORGET:
                self.forget += made
            else:
                self.retain += made
                self.anchored += len(made)

    def collate(self, indices: Sequence[int], pad_id: int = 0, *, last: bool = False) -> Batch:
        """Return a batch: forget rows first, then their preferred answers, then retain rows, then their refusals.

        It adds to the keys of `data.batch.collate`: `index` and `group` of each sequence, `reference_nll` if known, and
        `counted` (1 or 0) if rows were repeated to fill the batch, and `anchored` if there are such rows. `subject`, if
        known, is [batch seq+1]: 0, or the number of a token of the subject, from 1; it has one position more than
        `input_ids`, since an answer's last token may be left out there. `last` is as there.
        """
        rows = [(i if i >= 0 else -1 - i, float(i >= 0)) for i in indices]
        ordered = [r for r in rows if r[0] < len(self.forget)], [r for r in rows if r[0] >= len(self.forget)]
        forget, retain = ([i for i, _ in part] for part in ordered)
        others = forget if self.preferred else []
        refused = retain if self.retain_preferred else []
        items = [self.forget[i] for i in forget] + [self.preferred[i] for i in others] + [self.item(i) for i in retain]
        items += [self.retain_preferred[i - len(self.forget)] for i in refused]
        labels = [self.labels[i] for i in forget] + [item.answer_ids for item in items[len(forget) :]]
        batch = collate(items, labels, pad_id=pad_id, last=last)
        batch["index"] = torch.tensor(forget + others + retain + refused)
        groups = [FORGET_GROUP] * len(forget) + [PREFERRED_GROUP] * len(others)
        groups += [RETAIN_GROUP] * len(retain) + [REFUSED_GROUP] * len(refused)
        batch["group"] = torch.tensor(groups)
        if min(indices) < 0:
            counted = [[one for _, one in part] for part in ordered]
            again = [counted[0] if others else [], counted[1] if refused else []]
            batch["counted"] = torch.tensor(counted[0] + again[0] + counted[1] + again[1])
        if self.anchored:
            batch["anchored"] = batch["index"] >= len(self) - self.anchored
        if self.subject:
            batch["subject"] = torch.zeros(len(items), batch["input_ids"].shape[1] + 1, dtype=torch.long)
            for number, i in enumerate(forget):
                batch["subject"][number, list(self.subject[i])] = torch.arange(1, len(self.subject[i]) + 1)
        if self.reference_nll:
            known = [self.reference_nll[i] for i in forget] + [self.preferred_nll[i] for i in others]
            batch["reference_nll"] = torch.tensor(known + [0.0] * len(retain + refused))
        return batch


def part_of(batch: Batch, keep: Tensor) -> Batch:
    """Return the sequences `keep` (ascending indices) of a batch from `Rows.collate`."""
    per_row = ("index", "group", "reference_nll", "counted", "anchored")
    return select_rows(batch, keep) | {k: batch[k][keep] for k in per_row if k in batch}


def parts_by_length(batch: Batch) -> list[Batch]:
    """Split a batch into parts of similar length, so that short rows are not padded to the longest.

    A batch with preferred answers or refusals is not split, since a row and its other answer must stay together.
    """
    if bool(((batch["group"] == PREFERRED_GROUP) | (batch["group"] == REFUSED_GROUP)).any()):
        return [batch]
    lengths = batch["attention_mask"].sum(-1).tolist()
    parts = list(length_batches(lengths, sum(lengths) + max(lengths) * len(lengths)))
    if len(parts) == 1:
        return [batch]
    return [part_of(batch, torch.tensor(sorted(part), device=batch["group"].device)) for part in parts]


def counted(batch: Batch) -> Tensor:
    """Return 1 for each sequence of a batch, but 0 for those repeated to fill it."""
    return batch["counted"] if "counted" in batch else torch.ones(len(batch["group"]), device=batch["group"].device)


class PairedSampler(Sampler[int]):
    """Order of one epoch: every forget row once, each with a retain row, in steps of similar length.

    Forget and retain rows are shuffled separately and paired by position; if there are fewer retain rows they repeat,
    if there are more, each epoch leaves out others. Pairs are sorted by length within chunks of 50 steps, then the
    steps are shuffled, as `transformers` groups by length. The order depends only on seed and epoch. If several
    processes share a step, the last step of an epoch is filled up, so that all of them have the same number of rows.

    Raises:
        ConfigError: there are retain rows, but the number of rows per step is odd.
    """

    def __init__(self, rows: Rows, rows_per_step: int, seed: int, multiple_of: int = 1) -> None:
        if rows.retain and rows_per_step % 2:
            raise ConfigError(
                f"batch size: {rows_per_step} rows per step; a step pairs forget with retain rows, so it must be even"
            )
        self.rows = rows
        self.per_step = rows_per_step // (2 if rows.retain else 1)
        self.seed = seed
        self.multiple_of = multiple_of
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        count = len(self.rows.forget) * (2 if self.rows.retain else 1)
        return count + -count % self.multiple_of

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
        given = [i for step in whole + [s for s in steps if len(s) < self.per_step] for group in step for i in group]
        # Longest first within a step, so that its micro-batches have similar lengths too; pairs stay adjacent.
        yield from given
        fill = [-1 - i for i in given[-len(groups[0]) :]]
        yield from itertools.islice(itertools.cycle(fill), -len(given) % self.multiple_of)
