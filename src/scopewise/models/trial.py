"""Trials of what a model computes: on numbers that reach far, whatever its weights are, and without touching them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

FAR = 100.0
"""Root mean square of logits in a trial of the head: beyond every cap that a model puts on them (30 and 50 are usual)."""


@contextlib.contextmanager
def reaching_far(model: nn.Module, head: nn.Module | None = None) -> Iterator[None]:
    """Bring what linear layers and embeddings give to a root mean square of 1 (the head to `FAR`) while the context is open.

    A fresh model's states are so small that every layer is nearly linear and every logit nearly 0: whatever it computes
    looks the same. So a trial must not depend on the weights, which training changes later. Outputs are multiplied by
    hooks, each layer's by a factor that its first call fixes; weights are not written to.

    Args:
        model: The model.
        head: Its head, where the trial is about what comes after it; None leaves it as it is.
    """
    factors: dict[nn.Module, float] = {}

    def bring(module: nn.Module, _: Any, output: Any) -> Any:
        if not isinstance(output, Tensor) or not output.numel():
            return None
        if module not in factors:
            size = float(output.detach().float().square().mean().sqrt())
            wanted = FAR if module is head else 1.0
            factors[module] = wanted / size if 0 < size < float("inf") else 1.0
        return output * factors[module]

    layers = [m for m in model.modules() if isinstance(m, nn.Linear | Conv1D | nn.Embedding) or m is head]
    handles = [layer.register_forward_hook(bring) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def same(found: Tensor, expected: Tensor) -> bool:
    """Return whether two computations of some tokens' logits [tokens vocab] differ by rounding alone.

    Each token is compared by itself, relative to its size: another computation is a sixth or more away. In 16 bits the
    rounding of 32 layers adds up to 0.03.
    """
    if found.shape != expected.shape:
        return False
    allowed = 0.1 if expected.dtype.itemsize == 2 else 5e-3
    found, expected = found.float(), expected.float()
    distance = (found - expected).norm(dim=-1) / expected.norm(dim=-1).clamp(min=1e-30)
    return bool((distance <= allowed).all())


def window_of(model: Any) -> int | None:
    """Return the fewest tokens that a layer's attention is limited to, as the configuration has it; None without a limit.

    Rows that are not longer are computed as without one. A limit that is named and switched off counts: it costs speed.

    Args:
        model: Without wrappers.
    """
    config = model.config.get_text_config()
    if model not in _WINDOWS:  # the names; values may be changed, and are read anew: this is asked in every forward
        _WINDOWS[model] = tuple(name for name in vars(config) if _names_a_window(name))
    sizes = (getattr(config, name, None) for name in _WINDOWS[model])
    return min((size for size in sizes if type(size) is int and size > 0), default=None)


_WINDOWS: WeakKeyDictionary[Any, tuple[str, ...]] = WeakKeyDictionary()


def _names_a_window(name: str) -> bool:
    return bool(re.search(r"window|local_attention|attention_chunk|local_attn", name)) and not re.search(
        r"layer|pattern|num_|block", name
    )


def counts_columns(model: Any) -> bool:
    """Return whether a model takes positions from a token's place in the tensor beside those that it is given.

    Llama 4 scales attention by it, from position 8192 on, where no trial on a few tokens looks.

    Args:
        model: Without wrappers.
    """
    return bool(getattr(model.config.get_text_config(), "attn_temperature_tuning", False))
