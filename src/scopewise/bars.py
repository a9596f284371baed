"""Progress bars: on stderr, gone when done, and few lines where stderr is a file."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def bar(total: int, description: str, unit: str = "row", **options: Any) -> tqdm:
    """Return a progress bar; a context manager with `update`."""
    seconds = 0.1 if sys.stderr.isatty() else 15.0
    return tqdm(total=total, desc=description, unit=unit, leave=False, mininterval=seconds, **options)
