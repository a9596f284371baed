r"""The only printer: it escapes whatever a terminal would interpret, and keeps texts and progress bars on separate lines.

Data, models, file names and libraries can contain characters that a terminal interprets (`ESC [ 2 J` clears it, OSC 52
writes to the clipboard) or that make text look like other text (right-to-left overrides, zero-width characters). `escaped`
shows them as `\x1b` or `\u202e`. Everything that the package prints goes through `echo` or `echo_json`; `escape_streams`
does the same for standard output and standard error, for libraries, warnings and tracebacks.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

LAYOUT = "\n\t"
"""Control characters of our own layout."""
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_OBEYED = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
"""Unicode categories: controls, formats (bidi, zero width, tags), lone surrogates, separators of lines and paragraphs."""


_bars: WeakSet[Any] = WeakSet()
"""Those that may be on the line of a terminal."""


def escaped(text: str, keep: str = LAYOUT) -> str:
    r"""Return the text with control and invisible characters escaped: ESC becomes `\x1b`.

    Args:
        text: Any text, lone surrogates too.
        keep: Control characters to leave unchanged; none for a text that must stay on one line.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(c) if c not in keep and unicodedata.category(c) in _OBEYED else c for c in text)


def _visible(c: str) -> str:
    if c in _NAMED:
        return _NAMED[c]
    code = ord(c)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def echo(text: object = "", *, err: bool = False) -> None:
    """Print a text, escaped, on its own line; a progress bar on that line is erased first and drawn again.

    Args:
        text: The text or path to print.
        err: Print to standard error.

    Raises:
        BrokenPipeError: the reader went away.
    """
    stream = sys.stderr if err else sys.stdout
    if isinstance(stream, Guarded):
        stream = stream.raw_stream
    with _lifted():
        stream.write(_encodable(escaped(str(text)), stream) + "\n")
        stream.flush()


def echo_json(document: Any) -> None:
    """Print JSON in ASCII, which every terminal displays unchanged."""
    # DEL is the one ASCII control that JSON leaves alone.
    echo(json.dumps(document, indent=2).replace("\x7f", "\\u007f"))


def echo_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table, wrapped to the width of the terminal; brackets are not interpreted as markup.

    A name that is too long goes on in the next line, so that no two names look equal. On a terminal a cell that begins with a
    word of `COLORS` has its color. Without headings the table has none.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    raw = sys.stdout.raw_stream if isinstance(sys.stdout, Guarded) else sys.stdout
    colored = raw.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    shown = [[escaped(cell, keep="") for cell in row] for row in rows]
    table = Table(box=None, show_header=bool(headings), pad_edge=False)
    for column in range(len(headings) or max(map(len, shown), default=0)):
        longest = max((len(row[column]) for row in shown), default=0)
        least = min(longest, _NAME) if column == 0 else None
        table.add_column(headings[column] if headings else "", overflow="fold", min_width=least)
    for row in shown:
        table.add_row(*(Text(cell, COLORS.get(cell.partition(":")[0], "")) for cell in row))
    text = io.StringIO()
    system: Any = "standard" if colored else None
    Console(file=text, force_terminal=colored, color_system=system, markup=False, emoji=False, highlight=False).print(
        table
    )
    lines = [line.rstrip() for line in text.getvalue().rstrip("\n").split("\n")]
    with _lifted():  # the cells are escaped, and what else stands here is rich's own
        raw.write(_encodable("\n".join(lines), raw) + "\n")
        raw.flush()


_NAME = 24
"""Characters of a name that stay on one line."""
COLORS = {"green": "green", "ok": "green", "amber": "yellow", "red": "red", "failed": "red"}
"""Word → its color on a terminal, which says nothing that the word does not say."""


def counted(number: int | None, what: str) -> str:
    """Return a number with its noun: `1 row`, `2 rows`."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def echo_wrapped(text: str) -> None:
    """Print sentences, wrapped between words to the width of the terminal."""
    width = shutil.get_terminal_size().columns
    echo("\n".join(textwrap.fill(escaped(line, keep=""), width, break_long_words=False, break_on_hyphens=False)
                   for line in text.splitlines()))  # fmt: skip


def _encodable(text: str, stream: Any) -> str:
    """Return the text with characters that the stream's encoding lacks (such as σ in ISO 8859-1) as visible escapes."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def watch(bar: Any) -> None:
    """Register a progress bar (of `tqdm`) to be erased before anything is printed."""
    _bars.add(bar)


def close_bars() -> None:
    """Close every progress bar that an interruption or an error left open."""
    for bar in sorted(_bars, key=lambda bar: -abs(bar.pos)):  # the lowest first: the last one leaves its line empty
        bar.close()
    _bars.clear()


def _drawn() -> list[Any]:
    return list(_bars) if sys.stderr is not None and sys.stderr.isatty() else []


@contextmanager
def _lifted() -> Iterator[None]:
    bars = _drawn()
    for bar in bars:
        bar.clear()
    try:
        yield
    finally:
        for bar in bars:
            bar.refresh()


class Guarded(io.TextIOBase):
    """A stream that escapes its text, and erases a progress bar before it writes to the bar's line.

    Args:
        stream: The stream to write to.
    """

    def __init__(self, stream: Any) -> None:
        self.raw_stream = stream
        self._begun = False

    def write(self, text: str) -> int:
        """Write a text, escaped."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if not text:
            return 0
        if not self._begun:
            for bar in _drawn():
                bar.clear()
        self.raw_stream.write(_encodable(escaped(text), self.raw_stream))
        self._begun = not text.endswith("\n")  # `print` writes the end of the line by itself
        if not self._begun:
            for bar in _drawn():
                bar.refresh()
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        self.raw_stream.flush()

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self.raw_stream.isatty()

    def fileno(self) -> int:
        """Return the number of the open file."""
        return self.raw_stream.fileno()

    def writable(self) -> bool:
        """Return True."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """UTF-8: everything can be written. No `buffer` is offered, since bytes would pass unread."""
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """Characters that the underlying stream cannot encode become visible escapes."""
        return "backslashreplace"


def escape_streams() -> None:
    """Guard standard output and standard error of this process; done by the command line, never on import."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Guarded):
            setattr(sys, name, Guarded(stream))


def terminal_of(stream: Any) -> Any | None:
    """Return the terminal that a stream writes to; None if it does not write to one."""
    raw = stream.raw_stream if isinstance(stream, Guarded) else stream
    return raw if raw is not None and raw.isatty() else None
