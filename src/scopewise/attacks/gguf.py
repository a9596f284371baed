"""Quantization as llama.cpp's GGUF files have it, by the `gguf` package."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

BLOCK = 32
"""Weights of a row that share a scale; llama.cpp leaves matrices of another width in 16 bits, and so do we."""
SCHEMES = ("Q8_0", "Q5_0", "Q4_1", "Q4_0")
"""Types that the package can write; it has no quantizer of the K types."""


def installed() -> bool:
    """Return whether the `gguf` package is installed."""
    return importlib.util.find_spec("gguf") is not None


def through_gguf(weight: Float[Tensor, "out inputs"], scheme: str) -> Float[Tensor, "out inputs"]:
    """Quantize a matrix to a GGUF type and back."""
    import gguf

    if weight.shape[1] % BLOCK:
        return weight.half().to(weight)
    kind = gguf.GGMLQuantizationType[scheme]
    packed = gguf.quantize(weight.float().cpu().contiguous().numpy(), kind)
    return torch.from_numpy(gguf.dequantize(packed, kind)).to(weight)


def changes() -> dict[str, Callable[[str, Tensor], Tensor]]:
    """Return setting → change of a matrix, for each type; empty without the package."""
    if not installed():
        return {}
    return {f"gguf {scheme}": lambda _, w, s=scheme: through_gguf(w, s) for scheme in SCHEMES}  # type: ignore[misc]
