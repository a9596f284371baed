"""Early stopping: evaluate a few rows during unlearning, warn, keep the best state, stop."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback

from scopewise import schemas
from scopewise.config import EarlyStoppingSection
from scopewise.data.prompt import Encoded
from scopewise.files import write_json
from scopewise.models.parallel.fsdp import full_tensor, shard_like
from scopewise.ops import token_kl

logger = logging.getLogger("scopewise")

_EVALUATIONS, _BEST = "probes.json", "best.safetensors"

_COLLAPSE = 0.5
"""The model has collapsed if its retain accuracy is below this share of that before unlearning."""
_STEPS = 10
"""Number of steps before the warning that nothing is forgotten, since learning rates warm up; shorter trainings warn at
their end."""
_NOTHING = 1.0
"""Nothing is forgotten if Unlearn Success has risen by less than this, in points."""
_FORGOTTEN = 50.0
"""Nor is there much to forget if it was this high before the first step."""


@dataclass(frozen=True)
class StepEvaluation:
    """Result of one evaluation during training.

    Attributes:
        step: Optimiser steps before it.
        unlearn_success: 100 - teacher-forced accuracy on the forget rows that are evaluated, in percent.
        retention_success: Accuracy on the retain rows that are evaluated, in percent.
        kl: KL to the model before unlearning on the retain rows' answers, in nats per token; None if it is not measured.
    """

    step: int
    unlearn_success: float
    retention_success: float
    kl: float | None = None

    @property
    def trade_off(self) -> float:
        """Average Success on these rows."""
        return (self.unlearn_success + self.retention_success) / 2


class EarlyStopping(TrainerCallback):
    """Early stopping on a few train rows of both scopes, evaluated every few steps; val rows are never used.

    It warns (through `logging`, logger `scopewise`) in two cases: nothing is forgotten after half of the training (and
    at least 10 steps, or all if there are fewer; not if a wrapper made the model forget before the first step), or the
    accuracy on retain rows falls below half of that before unlearning. With `keep_best`, training ends with the state of
    highest Average Success on these rows; with `patience`, it stops after that many evaluations without improvement; with
    `max_kl`, after the first one whose KL is above it.

    Args:
        forget: Forget train rows.
        retain: Retain train rows.
        settings: The run file's `early_stopping` section.
        seed: Of the choice of rows.
        hit_rate: Returns the teacher-forced accuracy (0-1) on some rows.
        logits: Returns the logits at the answer tokens of some rows.
        changed: Whether a wrapper changes the model before the first step, as `reset` does.

    Attributes:
        evaluations: Those so far, in order.
    """

    def __init__(
        self,
        forget: Sequence[Encoded],
        retain: Sequence[Encoded],
        settings: EarlyStoppingSection,
        seed: int,
        hit_rate: Callable[[Sequence[Encoded]], float],
        logits: Callable[[Sequence[Encoded]], Tensor],
        changed: bool = False,
    ) -> None:
        rng = random.Random(seed)
        half = settings.rows // 2
        self.forget = rng.sample(list(forget), min(half, len(forget)))
        self.retain = rng.sample(list(retain), min(half, len(retain)))
        self.settings, self._hit_rate, self._logits = settings, hit_rate, logits
        self._changed = changed
        self._before: Tensor | None = None
        self.evaluations: list[StepEvaluation] = []
        self._best: dict[str, Tensor] = {}
        self._warned: set[str] = set()

    def prepare(self) -> None:
        """Store the model's predictions before unlearning, if KL is to be measured."""
        if self.settings.max_kl is not None:
            self._before = self._logits(self.retain)

    def load(self, checkpoint: Path) -> None:
        """Load the evaluations and the best state from a checkpoint."""
        if (kept := checkpoint / _EVALUATIONS).exists():
            self.evaluations = [StepEvaluation(**one) for one in schemas.read(kept, schemas.ProbesDocument)["probes"]]
        if self.settings.keep_best and (checkpoint / _BEST).exists():
            self._best = load_file(checkpoint / _BEST)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Evaluate before the first step; if resumed after early stopping, stop again."""
        if not self.evaluations:
            self._look(model, state.global_step)
        control.should_training_stop = control.should_training_stop or self._out_of_patience() or self._too_far()

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Evaluate every few steps and after the last one."""
        every = self.settings.steps or max(1, state.max_steps // 5)
        if state.global_step % every and state.global_step != state.max_steps:
            return
        self._look(model, state.global_step)
        self._warn(state)
        if self._out_of_patience():
            best = max(self.evaluations, key=lambda e: e.trade_off)
            logger.warning("step %d: no better trade-off since step %d; stopping early", state.global_step, best.step)
            control.should_training_stop = True
        if self._too_far():
            now, most = self.evaluations[-1].kl, self.settings.max_kl
            logger.warning(
                "step %d: KL to the model before unlearning is %.3g, max_kl %g; stopping", state.global_step, now, most
            )
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save the evaluations and the best state with the checkpoint."""
        if not state.is_world_process_zero:
            return
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        evaluations = [asdict(one) for one in self.evaluations]
        write_json(checkpoint / _EVALUATIONS, {"format": schemas.ProbesDocument.FORMAT, "probes": evaluations})
        if self._best:
            save_file(self._best, checkpoint / _BEST)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Restore the best state."""
        if not self._best or self.evaluations[-1] is max(self.evaluations, key=lambda e: e.trade_off):
            return
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in self._best:
                    parameter.copy_(shard_like(self._best[name], parameter))

    def _out_of_patience(self) -> bool:
        best = max(range(len(self.evaluations)), key=lambda i: self.evaluations[i].trade_off)
        return bool(self.settings.patience) and len(self.evaluations) - 1 - best >= self.settings.patience

    def _too_far(self) -> bool:
        kl, most = self.evaluations[-1].kl, self.settings.max_kl
        return kl is not None and most is not None and kl > most

    def _look(self, model: nn.Module, step: int) -> None:
        forget, retain = self._hit_rate(self.forget), self._hit_rate(self.retain)
        kl = None if self._before is None else float(token_kl(self._before, self._logits(self.retain)).mean())
        self.evaluations.append(StepEvaluation(step, 100.0 - 100.0 * forget, 100.0 * retain, kl))
        if self.settings.keep_best and self.evaluations[-1] is max(self.evaluations, key=lambda e: e.trade_off):
            self._best = {
                n: full_tensor(p.detach()).cpu().clone() for n, p in model.named_parameters() if p.requires_grad
            }

    def _warn(self, state: Any) -> None:
        first, now = self.evaluations[0], self.evaluations[-1]
        if now.retention_success < _COLLAPSE * first.retention_success:
            self._once(
                "collapse",
                f"step {state.global_step}: the model collapses: it answers {now.retention_success:.0f} % of the retain "
                f"tokens, {first.retention_success:.0f} % before; lower the learning rate, raise retain_weight, or stop "
                "earlier",
            )
        far = 2 * state.global_step >= state.max_steps and state.global_step >= _STEPS
        level = now.unlearn_success < first.unlearn_success + _NOTHING and first.unlearn_success < _FORGOTTEN
        if level and not self._changed and (far or state.global_step == state.max_steps):
            self._once(
                "nothing",
                f"step {state.global_step}: nothing is being forgotten: Unlearn Success {now.unlearn_success:.0f} %, "
                f"{first.unlearn_success:.0f} % before; raise the learning rate or the number of epochs",
            )

    def _once(self, what: str, sentence: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            logger.warning(sentence)
