"""Turn an out-of-memory error into a sentence that names the stage and the settings to lower."""

from __future__ import annotations

import errno

from scopewise.bars import under_way

_TEXTS = (
    "out of memory",
    "DefaultCPUAllocator",
    "not enough memory",
    "can't allocate memory",
    "ALLOC_FAILED",
    "bad_alloc",
)
"""Messages of PyTorch's RuntimeErrors for it, on CPUs and accelerators without an exception class for it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception means out of memory, on the host or on an accelerator."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    text = str(error)
    return (isinstance(error, RuntimeError) and any(part in text for part in _TEXTS)) or "(os error 12)" in text


def out_of_memory_sentence() -> str:
    """Return `out of memory in WORK; what to lower`, where WORK is the label of the latest progress bar."""
    work, unit = under_way()
    if not work:
        return (
            "out of memory before any work began, most likely while a model was loaded; set model.dtype=bfloat16 or "
            "model.quantization=nf4, or take a smaller model"
        )
    if unit == "step":
        lower = (
            "lower batch_size (and raise gradient_accumulation_steps by as much: the numbers stay the same), set "
            "activation_checkpointing=true, parameters=lora or model.dtype=bfloat16"
        )
    elif work.startswith("localize"):
        lower = "lower localize.max_tokens or localize.localizer_args.gradient_gigabytes, or set model.dtype=bfloat16"
    else:
        lower = "lower evaluate.max_tokens (attack.max_tokens for an attack), or set model.dtype=bfloat16"
    return f"out of memory in {work!r}; {lower}"
