"""What training costs: seconds per step and peak memory."""

from __future__ import annotations

import contextlib
import resource
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch


class Cost:
    """Measures a block: wall time, seconds of each step, and the peak memory reached inside it.

    Memory is the accelerator's peak allocation where there is one (all processes see their own device), else the process's
    peak resident set. Linux lets the latter be reset, so that it is this block's; elsewhere it is the process's so far.
    """

    def __init__(self) -> None:
        self.step_seconds: list[float] = []
        self.seconds = 0.0
        self.peak_memory_bytes = 0

    def __enter__(self) -> Cost:
        self._start = time.perf_counter()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        else:
            _reset_peak_resident()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds += time.perf_counter() - self._start
        self.peak_memory_bytes = max(self.peak_memory_bytes, self._peak())

    @staticmethod
    def _peak() -> int:
        return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_resident_bytes()

    def so_far(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of the cost, from inside the block."""
        seconds = self.seconds + time.perf_counter() - self._start
        return {"step_seconds": self.step_seconds, "seconds": seconds, "peak_memory_bytes": self._peak()}

    def go_on_from(self, kept: Mapping[str, Any]) -> None:
        """Count on from what a checkpoint kept, so that a resumed training costs what both parts cost."""
        self.step_seconds[:0] = kept["step_seconds"]
        self.seconds += kept["seconds"]
        self.peak_memory_bytes = max(self.peak_memory_bytes, kept["peak_memory_bytes"])

    def document(self) -> dict[str, Any]:
        """Return what results keep: the median step (the first ones warm up), all seconds, peak memory."""
        return {
            "seconds_per_step": statistics.median(self.step_seconds) if self.step_seconds else None,
            "steps": len(self.step_seconds),
            "seconds": self.seconds,
            "peak_memory_bytes": self.peak_memory_bytes,
        }


def peak_resident_bytes() -> int:
    """Return the peak resident set of this process since the last reset, in bytes."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _reset_peak_resident() -> None:
    with contextlib.suppress(OSError):  # not Linux, or not allowed: the peak is then the process's so far
        Path("/proc/self/clear_refs").write_text("5")
