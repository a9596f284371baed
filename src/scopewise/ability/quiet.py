"""Keeps the harness's own notes and bars off the terminal: it draws a bar for each of MMLU's 57 subjects."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the harness for the time of a block; errors still show."""
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
