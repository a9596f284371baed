"""Checkpoints by time: often enough that a kill loses only minutes, rarely enough that saving costs little."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from scopewise.models.parallel.processes import any_process, is_main

COST = 0.02
"""Largest share (0-1) of the training time that saving may take; above it, no checkpoint by time is made."""
SPACING = 60
"""Least time between checkpoints by time, as a multiple of the last save's duration: more than 1 / COST, since the next
save may take longer."""


class Checkpoints(TrainerCallback):
    """Requests a checkpoint when the last one is some minutes old, if saving takes less than `COST` of the time.

    The duration of a save is known only afterwards. So the first checkpoint is always made after `minutes`; the next
    one waits for `SPACING` times that duration, and until all saves, with one more like the last, are below `COST`.

    The main process decides for all, since they have to save at the same step. Checkpoints by steps are made as well,
    and count as the last one. Results do not depend on when checkpoints are saved.

    Args:
        minutes: Least time between two checkpoints, in minutes; None requests none.
        clock: Returns the time in seconds.

    Attributes:
        last_seconds: Duration of the last save.
        saving_seconds: Total duration of all saves.
    """

    def __init__(self, minutes: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.minutes = minutes
        self.last_seconds = self.saving_seconds = 0.0
        self._clock = clock
        self._begun = self._last = self._stepped = clock()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._begun = self._last = self._stepped = self._clock()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Request a checkpoint if one is due."""
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
        """Record the duration of the save: the time since the end of the step."""
        self._last = self._clock()
        self.last_seconds = self._last - self._stepped
        self.saving_seconds += self.last_seconds
