"""Progress bars: on stderr, gone when done, and few lines where stderr is a file."""

from __future__ import annotations

import os
import sys
from typing import Any

from tqdm import tqdm


def bar(total: int, description: str, unit: str = "row", **options: Any) -> tqdm:
    """Return a progress bar; a context manager with `update`. Of several processes the first one draws."""
    options.setdefault("disable", os.environ.get("RANK", "0") != "0")
    seconds = 0.1 if sys.stderr.isatty() else 15.0
    return tqdm(total=total, desc=description, unit=unit, leave=False, mininterval=seconds, **options)
