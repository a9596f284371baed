"""Keep the harness's log messages and progress bars off the terminal: it draws a bar per MMLU subject, 57 in all."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the harness within a block, except for errors."""
    import datasets
    import lm_eval.api.task as module

    logger, bars = logging.getLogger("lm_eval"), datasets.is_progress_bar_enabled()
    level, tqdm = logger.level, module.tqdm
    logger.setLevel(logging.ERROR)
    module.tqdm = functools.partial(tqdm, disable=True)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        module.tqdm = tqdm
        logger.setLevel(level)
        if bars:
            datasets.enable_progress_bars()
