"""SIGTERM and SIGHUP end a command as Ctrl-C does: files are closed, and a message says how to resume.

Libraries swallow an exception now and then while they are imported, so each signal is remembered (`again`).
"""

from __future__ import annotations

import signal
from types import FrameType

_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]  # Windows has no SIGHUP
_heard: list[int] = []


class Interrupted(KeyboardInterrupt):  # handled like Ctrl-C
    """The command was asked to end by a signal; Ctrl-C is one.

    Attributes:
        signal: Its number.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.signal = number


def interrupt_on_signals() -> None:
    """Make SIGINT, SIGTERM and SIGHUP raise `Interrupted` in this process, unless they are ignored (`nohup`)."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def again() -> None:
    """Raise `Interrupted` if a signal came before, whose exception a library has swallowed. Call it after slow imports."""
    if _heard:
        raise Interrupted(_heard[-1])


def signal_of(error: KeyboardInterrupt) -> int:
    """Return the number of the interrupting signal; SIGINT for Ctrl-C."""
    return error.signal if isinstance(error, Interrupted) else signal.SIGINT


def _interrupt(number: int, _: FrameType | None) -> None:
    _heard.append(number)
    raise Interrupted(number)
