"""The value of each row under each model of a run: `results.rows.json.gz`, from which all intervals are computed.

It has no text: instances are numbers, in the order in which they first occur. Imports no torch.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scopewise.data.instances import instance_of
from scopewise.documents import parse_json
from scopewise.errors import ResultError
from scopewise.files import write_bytes
from scopewise.schemas import RowValuesDocument, checked

FILE = "results.rows.json.gz"
_SCOPES = {"unlearn_success": "forget", "retention_success": "retain"}
"""Scope of metrics that do not name it in their key."""
_LARGEST = 2**31
"""Bytes of a file after decompression that are read."""


class RowValues:
    """Collects the values of each row, model by model.

    Args:
        target_seed: Seed with which target and oracle were fine-tuned.
    """

    def __init__(self, target_seed: int) -> None:
        self.target_seed = target_seed
        self._numbers: dict[str, int] = {}
        self._instances: dict[str, list[int]] = {}
        self._models: list[dict[str, Any]] = []

    def add(self, row: Mapping[str, Any], values: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]) -> None:
        """Add a model.

        Args:
            row: Its row in `results.json`.
            values: Metric key → value with `per_row`, from its evaluation document.
            answers: Its answers, which say what each row is about; without them each row is an instance of its own.
        """
        kept = {}
        for key, value in values.items():
            per_row = value.get("per_row") or []
            if not per_row:
                continue
            instances = self._of_rows(key, len(per_row), answers)
            if self._instances.setdefault(key, instances) == instances:  # else it was measured on other rows
                kept[key] = list(per_row)
        about = {"method": row["method"], "protocol": row["protocol"], "seed": row["seed"]}
        self._models.append({**about, "target_seed": self.target_seed, "values": kept})

    def _of_rows(self, key: str, count: int, answers: Sequence[Mapping[str, Any]]) -> list[int]:
        metric, _, place = key.partition("/")
        place = place.partition("+")[0]
        place = f"{_SCOPES[metric]}_{place}" if metric in _SCOPES else place
        rows = [row for row in answers if f"{row['scope']}_{row['split']}" == place]
        if len(rows) != count:
            return list(range(count))
        names = [instance_of(row["instance"], row["question"]) for row in rows]
        return [self._numbers.setdefault(name, len(self._numbers)) for name in names]

    def document(self) -> dict[str, Any]:
        """Return the content of the file."""
        keys = list(self._instances)
        split = "val" if any(key.endswith("/val") for key in keys) or not keys else "train"
        used = self._instances
        return {"format": RowValuesDocument.FORMAT, "split": split, "instances": used, "models": self._models}


def write_row_values(path: Path, document: Mapping[str, Any]) -> None:
    """Write the file; the same document gives the same bytes."""
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    write_bytes(path, gzip.compress(text.encode(), mtime=0))


def read_row_values(path: Path) -> dict[str, Any]:
    """Read the file. Raises ResultError if it is missing, broken, of another version, or not valid."""
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise ResultError(f"{path}: cannot be read ({error.strerror}); `scopewise bench` writes it") from None
    unpack = zlib.decompressobj(wbits=31)
    try:
        content = unpack.decompress(packed, _LARGEST)
        text = content.decode()
    except (zlib.error, UnicodeDecodeError):
        text = None
    if text is None or not unpack.eof:
        raise ResultError(f"{path}: not a whole gzip file of JSON; `scopewise bench … --resume` writes it again")
    document: dict[str, Any] = checked(parse_json(text, str(path), ResultError), RowValuesDocument, str(path))
    for model in document["models"]:
        for key, values in model["values"].items():
            if len(values) != len(document["instances"].get(key, ())):
                raise ResultError(
                    f"{path}: models.{key}; {len(values)} values for {len(document['instances'].get(key, ()))} rows; "
                    "make the file again with `scopewise bench … --resume`"
                )
    return document


def pooled(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the values of several runs on the same rows, each with a target of its own seed, as those of one run.

    Raises:
        ResultError: the runs were measured on other rows, or two have targets of the same seed.
    """
    first = documents[0]
    seeds = [{model["target_seed"] for model in document["models"]} for document in documents]
    for i, document in enumerate(documents):
        if (document["split"], document["instances"]) != (first["split"], first["instances"]):
            raise ResultError(
                f"run {i + 1}: measured on other rows or metrics than run 1; give both the same data and metrics"
            )
        if any(seeds[i] & seen for seen in seeds[:i]):
            raise ResultError(f"run {i + 1}: its target has the seed of another run; make each with its own run.seed")
    return {**first, "models": [model for document in documents for model in document["models"]]}
