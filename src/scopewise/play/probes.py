"""The run's probes: questions that made a model reveal what it should have forgotten, one JSON object per line."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scopewise.errors import ResultError

FILE = "probes.jsonl"


def append_probe(run: Path, probe: Mapping[str, Any]) -> Path:
    """Append a line to the run's probes; only the owner can read the file, since it holds text to be forgotten.

    The line is appended in one write, so that two writers do not mix and a kill leaves no partial line before another.

    Returns:
        The file.

    Raises:
        ResultError: the file cannot be written.
    """
    path = run / FILE
    line = json.dumps(probe, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            os.write(descriptor, line.encode("utf-8"))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ResultError(f"{path}: {error.strerror}; make the run folder writable") from None
    return path
