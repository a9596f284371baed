"""Fine-tuning by the attacker, shared by the three relearning attacks."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt

from scopewise.attacks.base import Attack, Facts, Outcome, score_answers
from scopewise.attacks.leakage import Combine
from scopewise.bars import bar
from scopewise.data.batch import collate, to_device
from scopewise.data.prompt import Encoded
from scopewise.data.rows import Row
from scopewise.models.engine import Engine
from scopewise.ops import token_log_probs

_CURVE = (1, 2, 5, 10, 20, 50, 100, 200, 500)
_WARM_UP = 2


@dataclass(frozen=True, kw_only=True)
class FineTuning(Attack):
    """Base of attacks that fine-tune on `material` and test the facts after several numbers of steps.

    Attributes:
        steps: Optimiser steps. Default: 20 in the quick suite, 50 in the full one; ours.
        learning_rate: Learning rate, constant after two warm-up steps. Default: half of the run's fine-tuning rate, or
            5e-5 without a run; ours.
        batch_size: Rows per step. Default: ours.
    """

    steps: Annotated[int | None, Ge(1)] = None
    learning_rate: Annotated[float | None, Gt(0)] = None
    batch_size: Annotated[int, Ge(1)] = 16

    combine: ClassVar[Combine] = "last"

    def material(self, facts: Facts) -> Sequence[Row]:
        """Return the rows to fine-tune on. Raises InapplicableError if there are none."""
        raise NotImplementedError

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Fine-tune, and score the tested facts during training.

        AdamW on all parameters without weight decay; two warm-up steps, then a constant learning rate. The order of
        rows depends only on the seed, so that target, oracle and unlearned model get the same batches.

        Returns:
            Setting `N steps` → signal of the tested rows; `0 steps` is the signal before the attack.
        """
        facts.check_split()
        items = subject.encode(self.material(facts))
        steps = self.steps or (50 if facts.full else 20)
        looks = sorted({s for s in _CURVE if s < steps} | {steps})
        if not facts.full:  # each evaluation is a pass over the rows
            looks = sorted({steps // 4 or 1, steps // 2 or 1, steps})
        signals, texts = {}, {}
        signals["0 steps"], texts["0 steps"] = score_answers(subject, facts.tested, "before relearning")
        rate = self.learning_rate or facts.learning_rate
        with subject.lend() as model, bar(steps, f"{subject.name}: relearn") as progress:
            model.requires_grad_(True)
            optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
            for step, batch in enumerate(_batches(items, self.batch_size, steps, facts.seed), start=1):
                for group in optimizer.param_groups:
                    group["lr"] = rate * min(1.0, step / _WARM_UP)
                on_device = to_device(collate(batch), subject.forward.device)
                loss = -token_log_probs(subject.forward.logits(on_device), on_device["label"]).mean()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                progress.update(1)
                if step in looks:
                    name = f"{step} steps"
                    signals[name], texts[name] = score_answers(subject, facts.tested, f"after {step} steps")
            optimizer.zero_grad(set_to_none=True)
        return Outcome(facts.tested, signals, texts)


def _batches(items: Sequence[Encoded], size: int, steps: int, seed: int) -> list[list[Encoded]]:
    rng = random.Random(seed)
    order: list[int] = []
    found = []
    for _ in range(steps):
        while len(order) < size:
            order += rng.sample(range(len(items)), len(items))
        found.append([items[i] for i in order[:size]])
        order = order[size:]
    return found
