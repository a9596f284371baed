"""The cost of a stage: seconds per step, tokens per second, share of the device's rate, peak memory."""

from __future__ import annotations

import contextlib
import resource
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from scopewise.models.flops import FlopCounter, matrix_rate
from scopewise.models.parallel.processes import gathered


class Cost:
    """Measures a block: wall time, operations and seconds of its steps, and peak memory.

    A step is the block inside `step`: an optimiser step, or a whole localization.

    Memory is the accelerator's peak allocation where there is one (all processes see their own device), else the process's
    peak resident set. Linux can reset the latter, so it is that of this block; elsewhere it is the peak of the process so
    far.
    """

    def __init__(self) -> None:
        self.step_seconds: list[float] = []
        self.work = FlopCounter()
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

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Measure a step."""
        start = time.perf_counter()
        with self.work:
            yield
        self.step_seconds.append(time.perf_counter() - start)

    @staticmethod
    def _peak() -> int:
        return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_resident_bytes()

    def so_far(self) -> dict[str, Any]:
        """Return the cost so far, to be saved with a checkpoint."""
        seconds = self.seconds + time.perf_counter() - self._start
        return {
            "step_seconds": self.step_seconds,
            "seconds": seconds,
            "peak_memory_bytes": self._peak(),
            "tokens": self.work.tokens,
            "operations": self.work.operations,
        }

    def go_on_from(self, kept: Mapping[str, Any]) -> None:
        """Continue from a checkpoint's cost, so that a resumed training reports both parts."""
        self.step_seconds[:0] = kept["step_seconds"]
        self.seconds += kept["seconds"]
        self.peak_memory_bytes = max(self.peak_memory_bytes, kept["peak_memory_bytes"])
        self.work.add(kept.get("tokens", 0), kept.get("operations", 0.0))

    def document(self) -> dict[str, Any]:
        """Return what results keep: the median step (the first ones warm up), all seconds, peak memory, and `rates`."""
        return {
            "seconds_per_step": statistics.median(self.step_seconds) if self.step_seconds else None,
            "steps": len(self.step_seconds),
            "seconds": self.seconds,
            **self.rates(),
        }

    def rates(self) -> dict[str, Any]:
        """Return tokens per second and the use of the device in the steps, of all processes together, and peak memory.

        `flops_utilisation` (0-1) is the number of operations that the work needs, divided by the number that the devices
        would do in the same time at the rate of a large matrix product, which is measured here. Every process has to call
        this.
        """
        work, seconds = self.work, sum(self.step_seconds)
        parts = gathered((work.tokens, work.operations, seconds, self.peak_memory_bytes))
        tokens, operations = sum(part[0] for part in parts), sum(part[1] for part in parts)
        longest = max(part[2] for part in parts)
        known = tokens > 0 and longest > 0
        ceiling = len(parts) * matrix_rate(work.device, work.dtype) if known else None
        return {
            "tokens": tokens,
            "tokens_per_second": tokens / longest if known else None,
            "flops_utilisation": operations / longest / ceiling if ceiling else None,
            "flops_ceiling_per_second": ceiling,
            "peak_memory_bytes": max(part[3] for part in parts),
            "processes": len(parts),
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
    with contextlib.suppress(OSError):  # not Linux, or not permitted: then it is the process's peak so far
        Path("/proc/self/clear_refs").write_text("5")
