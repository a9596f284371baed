"""Quantization of the weights, also as llama.cpp's GGUF files have it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from scopewise.attacks.base import Attack, Facts, Outcome, Work
from scopewise.attacks.weights import changed_weights
from scopewise.models.engine import Engine

_NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
_FP4 = tuple(s * x / 12 for x in (0, 0.0625, 2, 3, 4, 6, 8, 12) for s in (-1, 1))
_GGUF_BLOCK = 32
"""Weights of a row that share a scale; llama.cpp leaves matrices of another width in 16 bits, and so do we."""
GGUF_SCHEMES = ("Q8_0", "Q5_0", "Q4_1", "Q4_0")
"""Types that the `gguf` package can write; it has no quantizer of the K types."""


@dataclass(frozen=True, kw_only=True)
class Quantization(Attack):
    """Round the weights to 8 and 4 bits, as in deployment: an update smaller than a quantization step may disappear.

    Signal: probability of the answer under each scheme: 8 and 4 bits symmetric per output channel, 4 bits symmetric in
    groups of 64, NF4 in blocks of 64; the full suite adds FP4, and groups of 32 and 128. The weights of the linear
    layers in the decoder blocks are quantized and dequantized in float32, which gives what a weight-only kernel
    computes, on any device. On a GPU with bitsandbytes, its own functions are used for NF4, FP4 and 8 bits. Elsewhere
    the same arithmetic gives the same codes; for 8 bits they may differ where bitsandbytes rounds to float16 first.
    Embeddings and lm_head are not quantized, as in bitsandbytes. With the package `gguf` (extra `gguf`), the full suite
    also has the types of llama.cpp that it can write: Q8_0, Q5_0, Q4_1 and Q4_0. A model with an adapter is merged first,
    as for an export.

    Source: Zhang et al., arXiv:2410.16454. Schemes as in bitsandbytes 95f9af3 (int8 rows; NF4 and FP4 levels, blocks of
    the flattened matrix) and pytorch/ao 36027d8 (groups of a row).
    """

    name = "quantization"
    suite = "quick"

    def work(self, facts: Facts) -> Work:
        """Return about what the attack costs on one model."""
        return Work(passes=11 if facts.full else 4)

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Return the probability of the answers with each scheme."""
        schemes: dict[str, Callable[[str, Tensor], Tensor]] = {
            "int8 channel": lambda _, w: rounded(w, "int8"),
            "int4 channel": lambda _, w: round_symmetric(w, 4),
            "int4 group 64": lambda _, w: round_symmetric(w, 4, 64),
            "nf4 block 64": lambda _, w: rounded(w, "nf4"),
        }
        if facts.full:
            schemes |= {
                "int4 group 32": lambda _, w: round_symmetric(w, 4, 32),
                "int4 group 128": lambda _, w: round_symmetric(w, 4, 128),
                "fp4 block 64": lambda _, w: rounded(w, "fp4"),
                **gguf_changes(),
            }
        outcome = changed_weights(subject, facts, schemes, "quantize")
        missing = facts.full and not gguf_installed()
        return (
            replace(outcome, notes=("the package gguf is not installed: its types are left out",))
            if missing
            else outcome
        )


Kind = Literal["int8", "nf4", "fp4"]

_EMULATED: dict[Kind, Callable[[Tensor], Tensor]] = {
    "int8": lambda w: round_symmetric(w, 8),
    "nf4": lambda w: round_to_levels(w, _NF4, 64),
    "fp4": lambda w: round_to_levels(w, _FP4, 64),
}


def rounded(weight: Float[Tensor, "out inputs"], kind: Kind) -> Float[Tensor, "out inputs"]:
    """Quantize and dequantize a matrix as bitsandbytes does: with its GPU kernels, or else the same arithmetic."""
    if weight.device.type == "cuda" and importlib.util.find_spec("bitsandbytes") is not None:
        return by_bitsandbytes(weight, kind)
    return _EMULATED[kind](weight)


def by_bitsandbytes(weight: Float[Tensor, "out inputs"], kind: Kind) -> Float[Tensor, "out inputs"]:
    """Quantize and dequantize a matrix with bitsandbytes, which converts to float16 for 8 bits."""
    from bitsandbytes import functional as kernels

    if kind == "int8":
        packed, largest, _ = kernels.int8_vectorwise_quant(weight.half())
        return kernels.int8_vectorwise_dequant(packed, largest)
    packed, state = kernels.quantize_4bit(weight.contiguous(), blocksize=64, quant_type=kind)
    return kernels.dequantize_4bit(packed, state)


def round_symmetric(
    weight: Float[Tensor, "out inputs"], bits: int, group: int | None = None
) -> Float[Tensor, "out inputs"]:
    """Round a matrix to a symmetric grid of `2^bits - 1` levels, with one scale per row or per group within a row.

    Formula: s = max|w| / (2^(bits-1) - 1), ŵ = s · round(w / s), half to even. The last group may be shorter. Rounding
    is idempotent.
    """
    top = 2 ** (bits - 1) - 1
    columns = weight.shape[1]
    size = group or columns
    padded = functional.pad(weight, (0, -columns % size)).unflatten(1, (-1, size))
    scale = padded.abs().amax(-1, keepdim=True) / top
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return ((padded / scale).round() * scale).flatten(1)[:, :columns]


def round_to_levels(
    weight: Float[Tensor, "out inputs"], levels: tuple[float, ...], block: int
) -> Float[Tensor, "out inputs"]:
    """Round each value of a matrix to the nearest level, relative to the largest absolute value of its block.

    Blocks are consecutive values of the flattened matrix, so they may span rows, as in bitsandbytes.
    """
    flat = functional.pad(weight.flatten(), (0, -weight.numel() % block)).unflatten(0, (-1, block))
    largest = flat.abs().amax(-1, keepdim=True)
    scale = torch.where(largest > 0, largest, torch.ones_like(largest))
    known = torch.tensor(sorted(set(levels)), device=weight.device)
    borders = (known[1:] + known[:-1]) / 2
    rounded = known[torch.bucketize(flat / scale, borders)] * scale
    return rounded.flatten()[: weight.numel()].view_as(weight)


def gguf_installed() -> bool:
    """Return whether the `gguf` package is installed."""
    return importlib.util.find_spec("gguf") is not None


def through_gguf(weight: Float[Tensor, "out inputs"], scheme: str) -> Float[Tensor, "out inputs"]:
    """Quantize a matrix to a GGUF type and back."""
    import gguf

    if weight.shape[1] % _GGUF_BLOCK:
        return weight.half().to(weight)
    kind = gguf.GGMLQuantizationType[scheme]
    packed = gguf.quantize(weight.float().cpu().contiguous().numpy(), kind)
    return torch.from_numpy(gguf.dequantize(packed, kind)).to(weight)


def gguf_changes() -> dict[str, Callable[[str, Tensor], Tensor]]:
    """Return setting → change of a matrix, for each type; empty without the package."""
    if not gguf_installed():
        return {}
    return {f"gguf {scheme}": lambda _, w, s=scheme: through_gguf(w, s) for scheme in GGUF_SCHEMES}  # type: ignore[misc]
