"""Estimate how long a suite of attacks will take: the work of each attack times measured seconds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import torch

from scopewise.attacks.base import Attack, Facts, Work
from scopewise.data.batch import collate, to_device
from scopewise.eta import Part, Whole
from scopewise.models.engine import Engine
from scopewise.ops import token_log_probs

_BATCH, _SAMPLE = 16, 32


@dataclass(frozen=True)
class Price:
    """Seconds that attacks need on one machine.

    Attributes:
        step: Seconds of a training step of 16 rows.
        one_pass: Seconds of a pass over the tested rows.
    """

    step: float
    one_pass: float

    def of(self, work: Work) -> float:
        """Return the seconds of an attack on one model."""
        return work.steps * self.step + work.passes * self.one_pass

    def sentence(self, runs: Sequence[tuple[Attack, Facts]]) -> str:
        """Return a sentence on how long the remaining attacks will take together.

        Args:
            runs: Attack and rows, once per model.
        """
        total = sum(self.of(attack.work(facts)) for attack, facts in runs)
        dearest = max(runs, key=lambda run: self.of(run[0].work(run[1])))[0]
        share = sum(self.of(a.work(f)) for a, f in runs if a.name == dearest.name) / total if total else 0.0
        return (
            f"attack: {len(runs)} runs of attacks on models, about {_minutes(total)} ({dearest.name} {share:.0%}); a training "
            f"step takes {self.step:.2g} s here, a pass over the rows {self.one_pass:.2g} s"
        )

    def whole(self, runs: Sequence[tuple[str, Attack]], facts: Facts) -> Whole:
        """Return what is to be done, for the time that is left: first by this price, then by what the attacks have taken.

        Args:
            runs: Name of a model and attack, in order.
            facts: The rows.
        """
        whole = Whole(Part(f"{name}: {one.name}", (one.name,), self.of(one.work(facts))) for name, one in runs)
        whole.remember({"": (1.0, 1.0, 0.0)})  # a cost is a second, until more than that is known
        return whole


def measured(engine: Engine, facts: Facts) -> Price:
    """Time a training step and a pass over some of the rows; the model is left as it was."""
    rows = list(islice(cycle(facts.rows), _BATCH))
    with engine.lend() as model:
        model.requires_grad_(True)
        batch = to_device(collate(engine.encode(rows)), engine.forward.device)
        seconds = []
        for _ in range(2):  # the first one allocates
            begin = time.perf_counter()
            (-token_log_probs(engine.forward.logits(batch), batch["label"]).mean()).backward()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - begin)
            model.zero_grad(set_to_none=True)
    some = facts.rows[:_SAMPLE]
    pairs = [item.pair for item in engine.encode(some)]
    begin = time.perf_counter()
    engine.score(pairs, "measure the price")
    one_pass = (time.perf_counter() - begin) * len(facts.rows) / max(1, len(some))
    return Price(min(seconds) * 1.2, one_pass)  # clipping and AdamW come on top of the gradient


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else "a minute" if seconds >= 30 else f"{seconds:.0f} seconds"
