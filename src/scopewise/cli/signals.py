"""SIGTERM and SIGHUP end a command as Ctrl-C does: what is open is closed, and a sentence says how to go on."""

from __future__ import annotations

import signal
from types import FrameType

_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has no SIGHUP


class Interrupted(KeyboardInterrupt):  # a KeyboardInterrupt of another signal
    """A signal asked the command to end.

    Attributes:
        signal: Its number.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.signal = number


def interrupt_on_signals() -> None:
    """Have SIGTERM and SIGHUP raise `Interrupted` in this process; one that is ignored (`nohup`) stays ignored."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def signal_of(error: KeyboardInterrupt) -> int:
    """Return the number of the signal that interrupted: SIGINT's for Ctrl-C."""
    return error.signal if isinstance(error, Interrupted) else signal.SIGINT


def _interrupt(number: int, _: FrameType | None) -> None:
    raise Interrupted(number)
