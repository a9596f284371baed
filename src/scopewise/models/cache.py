"""A cache of scores and generated texts on disk, keyed by the content of model and input."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save
from torch import nn

from scopewise.documents import read_json
from scopewise.errors import ResultError
from scopewise.files import write_bytes, write_json
from scopewise.models.parallel.fsdp import full_tensor, is_sharded
from scopewise.models.score import Pair, Scored
from scopewise.tensor_files import fault

_COLUMNS = {
    "log_probs": np.float32,
    "hits": np.bool_,
    "predicted_ids": np.int32,
    "means": np.float32,
    "variances": np.float32,
}
_KEY_BYTES = 16


def content_hash(model: nn.Module) -> str:
    """Return the SHA-256 (hex) of a model's architecture and weights, adapters included."""
    kind = type(model).__mro__[2] if is_sharded(model) else type(model)  # FSDP2 puts a class of its own before it
    digest = hashlib.sha256(kind.__name__.encode())
    for name, parameter in model.state_dict().items():
        digest.update(f"{name}{tuple(parameter.shape)}{parameter.dtype}".encode())
        digest.update(full_tensor(parameter.detach()).cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class AnswerCache:
    """Scores and generated texts of one model, in two files of a folder.

    Several models may share the folder. It contains generated texts, so it is as private as the data.

    Args:
        folder: The folder.
        model: The model.

    Raises:
        ResultError: a file in the folder was not written by this class.
    """

    def __init__(self, folder: str | Path, model: nn.Module) -> None:
        name = content_hash(model)[:32]
        self._scores_file = Path(folder) / f"{name}.safetensors"
        self._texts_file = Path(folder) / f"{name}.json"
        self._scores: dict[str, Scored] = _read_scores(self._scores_file)
        self._texts = _read_texts(self._texts_file)

    def missing(self, pairs: Sequence[Pair], moments: bool = False) -> list[Pair]:
        """Return the pairs that are not cached, or cached without the moments that are wanted."""
        known = {key for key, s in self._scores.items() if not (moments and s.means and math.isnan(s.means[0]))}
        return [pair for pair in dict.fromkeys(pairs) if _key(pair) not in known]

    def scores(self, pairs: Sequence[Pair]) -> list[Scored]:
        """Return the scores of cached pairs."""
        return [self._scores[_key(pair)] for pair in pairs]

    def add_scores(self, pairs: Sequence[Pair], scored: Sequence[Scored]) -> None:
        """Store scores."""
        self._scores.update((_key(pair), score) for pair, score in zip(pairs, scored, strict=True))
        if pairs:
            columns: dict[str, np.ndarray] = {
                name: np.array([x for s in self._scores.values() for x in getattr(s, name)], dtype=kind)
                for name, kind in _COLUMNS.items()
            }
            columns["length"] = np.array([len(s.hits) for s in self._scores.values()], dtype=np.int32)
            columns["key"] = np.array([list(bytes.fromhex(key)) for key in self._scores], dtype=np.uint8)
            write_bytes(self._scores_file, save(columns))

    def texts(self, prompts: Sequence[tuple[int, ...]], settings: Sequence[Any]) -> list[list[str] | None]:
        """Return the cached texts of each prompt under these settings, or None."""
        return [self._texts.get(_key((prompt, tuple(settings)))) for prompt in prompts]

    def add_texts(
        self, prompts: Sequence[tuple[int, ...]], settings: Sequence[Any], texts: Sequence[list[str]]
    ) -> None:
        """Store generated texts."""
        keys = [_key((prompt, tuple(settings))) for prompt in prompts]
        self._texts.update(zip(keys, texts, strict=True))
        if prompts:
            write_json(self._texts_file, self._texts)


def _key(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[: 2 * _KEY_BYTES]


def _read_scores(path: Path) -> dict[str, Scored]:
    if not path.exists():
        return {}
    if (found := fault(path)) is not None:
        raise _broken(path, f"it {found}")
    columns = load_file(path)
    for name, kind in {**_COLUMNS, "length": np.int32, "key": np.uint8}.items():
        if name not in columns or columns[name].dtype != kind:
            raise _broken(path, f"{name} is missing, or of another dtype")
    length, key = columns["length"], columns["key"]
    if length.ndim != 1 or (length < 0).any() or key.shape != (len(length), _KEY_BYTES):
        raise _broken(path, "keys and lengths do not match")
    if any(columns[name].shape != (length.sum(),) for name in _COLUMNS):
        raise _broken(path, "there are not as many scores as tokens")
    ends = np.cumsum(length)[:-1]
    parts = [[part.tolist() for part in np.split(columns[name], ends)] for name in _COLUMNS]
    rows = [Scored(*(tuple(column[i]) for column in parts)) for i in range(len(length))]  # type: ignore[arg-type]
    return {bytes(one).hex(): row for one, row in zip(key, rows, strict=True)}


def _read_texts(path: Path) -> dict[str, list[str]]:
    if not path.exists():
        return {}
    found = read_json(path, ResultError)
    if not isinstance(found, dict):
        raise _broken(path, f"{type(found).__name__} in place of a mapping")
    for texts in found.values():
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise _broken(path, "an entry is no list of texts")
    return found


def _broken(path: Path, reason: str) -> ResultError:
    return ResultError(f"{path}: not a cache of answers ({reason}); remove it; it will be created again")
