"""When a training is saved by time: often enough that a kill costs minutes, seldom enough that saving costs little."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from scopewise.models.parallel.processes import any_process, is_main

COST = 0.02
"""Most of the time (a share, 0-1) that saving may take for a checkpoint by time to be asked for."""
SPACING = 60
"""The next checkpoint by time comes no sooner after the last one than so many times what that took to save: more than
1 / COST, since the next one may take longer."""


class Checkpoints(TrainerCallback):
    """Asks for a checkpoint when the last one is some minutes old, as long as saving stays below `COST` of the time.

    What a save costs is known when it is done. So the first one comes when its minutes are over, whatever it takes; the next
    one waits until `SPACING` times that has gone by, and until all saving, that one included, is below `COST` of all time.

    The main process decides and tells the others, since all of them have to save at the same step. Checkpoints by steps
    are saved beside these, and count as the last one. Numbers do not depend on when a training is saved.

    Args:
        minutes: Least time between two checkpoints, in minutes; None asks for none.
        clock: Gives the time in seconds.

    Attributes:
        last_seconds: What the last save took.
        saving_seconds: What all of them took.
    """

    def __init__(self, minutes: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.minutes = minutes
        self.last_seconds = self.saving_seconds = 0.0
        self._clock = clock
        self._begun = self._last = self._stepped = clock()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin to count."""
        self._begun = self._last = self._stepped = self._clock()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a checkpoint where one is due."""
        self._stepped = self._clock()
        if self.minutes is None or state.global_step >= state.max_steps:
            return
        if any_process(is_main() and self._due()):
            control.should_save = True

    def _due(self) -> bool:
        wait = max(60.0 * self.minutes, SPACING * self.last_seconds)  # type: ignore[operator]
        elapsed, spent = self._stepped - self._begun, self.saving_seconds + self.last_seconds
        return self._stepped - self._last >= wait and spent <= COST * elapsed

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count what saving took: all since the step ended."""
        self._last = self._clock()
        self.last_seconds = self._last - self._stepped
        self.saving_seconds += self.last_seconds
