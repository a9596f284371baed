"""The passes over all rows that read gradients."""

from __future__ import annotations

from typing import Any

from engines import forward_of
from scopewise.models.gradients import CPU_TOKENS, batches_of_all


def test_a_batch_on_a_cpu_is_small_whatever_is_allowed(tiny: tuple[Any, Any], encoded: Any) -> None:
    """A backward keeps memory for each token; all rows are read still."""
    items = encoded[0] * (2 * CPU_TOKENS // len(encoded[0][0]))
    batches = [batch for batch, _ in batches_of_all(forward_of(tiny[0]), items, 4096)]
    sizes = [batch["input_ids"].numel() for batch in batches]
    assert max(sizes) <= CPU_TOKENS < sum(sizes)
    assert sum(len(batch["input_ids"]) for batch in batches) == len(items)
