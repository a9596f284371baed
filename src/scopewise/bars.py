"""Progress bars: on stderr, gone when done, and few lines where stderr is a file."""

from __future__ import annotations

import os
import sys
from typing import Any

from tqdm import tqdm

from scopewise.terminal import drawing_stream, escaped, watch

_latest = ("", "")


def under_way() -> tuple[str, str]:
    """Return description and unit of the bar that was opened last: what the process is, or was last, busy with."""
    return _latest


def bar(total: int, description: str, unit: str = "row", **options: Any) -> tqdm:
    """Return a progress bar; a context manager with `update`. Of several processes the first one draws."""
    global _latest
    _latest = description, unit
    options.setdefault("disable", os.environ.get("RANK", "0") != "0")
    seconds = 0.1 if sys.stderr.isatty() else 15.0
    drawn = tqdm(
        total=total,
        desc=escaped(description, keep=""),
        unit=unit,
        leave=False,
        mininterval=seconds,
        file=drawing_stream(),
        **options,
    )
    watch(drawn)
    return drawn
