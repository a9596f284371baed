"""Turn errors of the system, of PyTorch and of typer into one sentence, wherever they come from."""

from __future__ import annotations

import errno
from typing import Any

import typer

from scopewise.bars import under_way

UsageError: Any = typer.BadParameter.__base__
"""Base of typer's errors for a wrong command line, which in newer releases is not click's class."""

_PATHS = (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EROFS)
_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TEXTS = (
    "out of memory",
    "DefaultCPUAllocator",
    "not enough memory",
    "can't allocate memory",
    "ALLOC_FAILED",
    "bad_alloc",
)
"""Messages of PyTorch's RuntimeErrors for it, on CPUs and accelerators without an exception class for it."""


def path_sentence(error: OSError) -> str | None:
    """Return the sentence for a path that cannot be used or a full disk; None for any other error."""
    if error.errno in _ROOM:
        return f"{error.filename or 'disk'}: {error.strerror}; make room, or write to another place"
    if error.errno in _PATHS and error.filename is not None:
        return f"{error.filename}: {error.strerror}; give a path that can be read and written"
    return None


def link_sentence(error: RuntimeError) -> str | None:
    """Return the sentence for a symlink loop, a RuntimeError of `Path.resolve` before Python 3.13; None for others."""
    text = str(error)
    return f"{text}; give a path that can be read and written" if text.startswith("Symlink loop") else None


def argument_sentence(argument: str) -> str | None:
    """Return the sentence for an argument that is not valid UTF-8; None if it is."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return f"{argument}: an argument that is not UTF-8; rename the file, or set the terminal's locale to UTF-8"
    return None


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


def usage_sentence(error: Any) -> str:
    """Return `scopewise COMMAND: what is wrong; where to read on`."""
    command = error.ctx.command_path if error.ctx is not None else "scopewise"
    text = " ".join(error.format_message().replace("Value error, ", "").split()).rstrip(".")
    return f"{command}: {text[:1].lower()}{text[1:]}; see `{command} --help`"
