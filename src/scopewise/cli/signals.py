"""SIGTERM and SIGHUP end a command as Ctrl-C does: files are closed, and a message says how to resume."""

from __future__ import annotations

import signal
from types import FrameType

_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has no SIGHUP


class Interrupted(KeyboardInterrupt):  # handled like Ctrl-C
    """The command was asked to end by a signal.

    Attributes:
        signal: Its number.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.signal = number


def interrupt_on_signals() -> None:
    """Make SIGTERM and SIGHUP raise `Interrupted` in this process, unless they are ignored (`nohup`)."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def signal_of(error: KeyboardInterrupt) -> int:
    """Return the number of the interrupting signal; SIGINT for Ctrl-C."""
    return error.signal if isinstance(error, Interrupted) else signal.SIGINT


def _interrupt(number: int, _: FrameType | None) -> None:
    raise Interrupted(number)
