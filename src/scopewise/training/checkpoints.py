"""When a training is saved by time: often enough that a kill costs minutes, seldom enough that saving costs little."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from scopewise.models.processes import any_process, is_main

COST = 0.02
"""Most of the time (a share, 0-1) that checkpoints by time may take."""


class Checkpoints(TrainerCallback):
    """Asks for a checkpoint when the last one is some minutes old, and 50 times as old as it took to save.

    The main process decides and tells the others, since all of them have to save at the same step. Checkpoints by steps
    are saved beside these, and count as the last one. Numbers do not depend on when a training is saved.

    Args:
        minutes: Least time between two checkpoints, in minutes; None asks for none.
        clock: Gives the time in seconds.

    Attributes:
        longest_seconds: The longest that saving has taken.
    """

    def __init__(self, minutes: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.minutes = minutes
        self.longest_seconds = 0.0
        self._clock = clock
        self._last = self._stepped = clock()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin to count."""
        self._last = self._stepped = self._clock()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a checkpoint where one is due."""
        self._stepped = self._clock()
        if self.minutes is None or state.global_step >= state.max_steps:
            return
        wait = max(60.0 * self.minutes, self.longest_seconds / COST)
        if any_process(is_main() and self._stepped - self._last >= wait):
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count what saving took: all since the step ended."""
        self._last = self._clock()
        self.longest_seconds = max(self.longest_seconds, self._last - self._stepped)
