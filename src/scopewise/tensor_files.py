"""What is wrong with a safetensors file, from its header: no tensor is read, so a file of any size takes no time."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from scopewise.documents import read_json
from scopewise.errors import UserError

_LENGTH = 8  # bytes that hold the length of the header
_LONGEST = 100_000_000  # bytes of a header that the library reads
_POINTER = b"version https://git-lfs"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MODEL_WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def fault(file: Path) -> str | None:
    """Return what is wrong with a safetensors file, with its numbers of bytes; None where it can be read.

    Raises:
        OSError: the file is not there, or may not be read.
    """
    if not file.is_file():
        raise FileNotFoundError(2, "No such file or directory", str(file))
    try:
        with safe_open(file, "np"):
            return None
    except (SafetensorError, ValueError, OverflowError):
        return _reason(file) or "is damaged: its header does not describe tensors that follow each other"
    except OSError:
        if (found := _reason(file)) is None:  # an empty file cannot be mapped into memory
            raise
        return found


def _reason(file: Path) -> str | None:
    """Return which kind of damage it is; None where the header shows none of those that are told apart."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        begin = opened.read(len(_POINTER))
        if not begin:
            return "is empty"
        if begin == _POINTER:
            return "is a pointer of Git LFS and not the weights; `git lfs pull` fetches them"
        length = int.from_bytes(begin[:_LENGTH], "little")
        if size <= _LENGTH or begin[_LENGTH : _LENGTH + 1] != b"{":
            return f"is no safetensors file: its {size} bytes do not begin with a header"
        if length > size - _LENGTH:
            return f"is cut off: it holds {size} bytes, and its header alone has {_LENGTH + length}"
        opened.seek(_LENGTH)
        promised = _promised(opened.read(length)) if length <= _LONGEST else None
    if promised is None:
        return "is damaged: its header is no list of tensors"
    whole = _LENGTH + length + promised
    if size < whole:
        return f"is cut off: it holds {size} bytes of the {whole} that its header promises"
    if size > whole:
        return f"is damaged: it holds {size} bytes, and its header describes {whole}"
    return None


def _promised(header: bytes) -> int | None:
    """Return how many bytes of data a header describes; None where it is none."""
    try:
        tensors = json.loads(header)
        ends = [int(about["data_offsets"][1]) for name, about in tensors.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, OverflowError):
        return None
    return max(ends, default=0)


def weight_files(folder: Path, error: type[UserError]) -> list[Path]:
    """Return the files that hold the weights of a model or adapter folder, whether they are there or not.

    Args:
        folder: With `adapter_config.json`, or with `config.json`; of any other folder nothing is known.
        error: Class of what is raised where a JSON file cannot be read.

    Raises:
        UserError: of the class `error`: the index of a model in several files is none.
    """
    if (folder / ADAPTER_CONFIG).exists():
        return [folder / ADAPTER_WEIGHTS]
    if not (folder / "config.json").exists():
        return []
    index = folder / INDEX
    if (folder / MODEL_WEIGHTS).exists() or not index.exists():
        config = read_json(folder / "config.json", error, nan=True)
        own_name = config.get("transformers_weights") if isinstance(config, dict) else None
        return [] if own_name is not None else [folder / MODEL_WEIGHTS]
    found = read_json(index, error, nan=True)
    names = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise error(f"{index}: weight_map: not a mapping of tensors to files; copy the folder again")
    return [folder / name for name in dict.fromkeys(names.values())]


def damage(folder: Path, error: type[UserError]) -> str | None:
    """Return which weight file of a model or adapter folder is not whole, and how; None where all are.

    Args:
        folder: As for `weight_files`.
        error: As for `weight_files`.
    """
    for file in weight_files(folder, error):
        try:
            found = fault(file)
        except OSError as failure:
            return f"{_missing(file) if isinstance(failure, FileNotFoundError) else f'{file.name}: {failure.strerror}'}"
        if found is not None:
            return f"{file.name} {found}"
    return None


def _missing(file: Path) -> str:
    if (file.parent / INDEX).exists() and file.name not in (MODEL_WEIGHTS, ADAPTER_WEIGHTS):
        return f"no {file.name} in it, which {INDEX} names"
    other = {ADAPTER_WEIGHTS: "adapter_model.bin", MODEL_WEIGHTS: "pytorch_model.bin"}.get(file.name, "")
    pickled = f" ({other} is a pickle, which is never read)" if other and (file.parent / other).exists() else ""
    return f"no {file.name} in it{pickled}"
