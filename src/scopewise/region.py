"""A region: which parameters of a model may change, as a file that you can read, edit and reuse.

The JSON file lists the matrices. A region of rows, columns or single weights also has one bit per weight, in a safetensors
file of the same name.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from scopewise import schemas
from scopewise.errors import ResultError
from scopewise.files import write_bytes, write_json
from scopewise.tensor_files import fault

FORMAT = schemas.RegionDocument.FORMAT
TERMS = ("forget", "retain")


@dataclass(frozen=True)
class Entry:
    """One matrix of the model, with the localizer's results.

    Attributes:
        name: Parameter name, without the wrappers' prefixes, as `parameter_name` gives it.
        parameters: Number of its entries.
        chosen: Whether unlearning may change it. Edit this to change the region.
        module: The module that it was chosen with.
        selected: How many of its entries may change if it is chosen; None for all of them.
        score: The localizer's score of its unit; units with higher scores are chosen first. None if there is none.
        cosine: cos_i of Eq. 8, -1 to 1; None where a gradient is zero or the localizer uses none.
        magnitude: mean |G_UL| of its unit, in nats per unit of the parameter.
        magnitude_retain: The same of G_RT.
    """

    name: str
    parameters: int
    chosen: bool
    module: str
    selected: int | None = None
    score: float | None = None
    cosine: float | None = None
    magnitude: float | None = None
    magnitude_retain: float | None = None


@dataclass(frozen=True)
class Mask:
    """Which entries of a matrix may change: a bit each, packed.

    Attributes:
        bits: `np.packbits` of the flattened mask.
        shape: Of the matrix.
    """

    bits: np.ndarray
    shape: tuple[int, ...]

    @staticmethod
    def pack(mask: np.ndarray) -> Mask:
        """Pack a boolean array."""
        return Mask(np.packbits(mask.reshape(-1)), tuple(mask.shape))

    def unpack(self) -> np.ndarray:
        """Return the boolean array."""
        count = int(np.prod(self.shape))
        return np.unpackbits(self.bits, count=count).astype(bool).reshape(self.shape)


@dataclass(frozen=True)
class Region:
    """A mask over parameters: whole matrices, or entries of them.

    Attributes:
        localizer: Which localizer made it.
        settings: Its settings and thresholds.
        entries: Every matrix it could choose from.
        seconds: Duration of the localization.
        origin: Provenance, as a manifest.
        masks: Name → mask, for matrices of which only a part may change; `forget:NAME` and `retain:NAME` if the two terms
            of the loss may change different entries.
        cost: Tokens per second, device utilisation and peak memory of the localization; None if there was no forward pass.
    """

    localizer: str
    settings: Mapping[str, Any]
    entries: tuple[Entry, ...]
    seconds: float = 0.0
    origin: Mapping[str, Any] | None = None
    masks: Mapping[str, Mask] = field(default_factory=dict)
    cost: Mapping[str, Any] | None = None

    @property
    def names(self) -> frozenset[str]:
        """Names of the matrices that may change."""
        return frozenset(e.name for e in self.entries if e.chosen)

    @property
    def parameters(self) -> int:
        """Number of single parameters that may change."""
        return sum(e.parameters if e.selected is None else e.selected for e in self.entries if e.chosen)

    @property
    def fraction(self) -> float:
        """Share (0-1) of the localizable parameters that may change."""
        return self.parameters / max(1, sum(e.parameters for e in self.entries))

    @property
    def splits_terms(self) -> bool:
        """Whether the forget and the retain term may change different entries."""
        return any(name.startswith("forget:") for name in self.masks)

    def mask(self, name: str, term: str | None = None) -> np.ndarray | None:
        """Return which entries of a matrix may change (by a term, `forget` or `retain`); None for all of them."""
        found = self.masks.get(name if term is None else f"{term}:{name}") or self.masks.get(name)
        return None if found is None else found.unpack()

    def with_origin(self, origin: Mapping[str, Any], cost: Mapping[str, Any] | None = None) -> Region:
        """Return the region with its manifest and its cost."""
        return replace(self, origin=dict(origin), cost=cost)

    def content_hash(self) -> str:
        """Return the SHA-256 (hex) of what may change: the names of the chosen matrices, and their masks."""
        digest = hashlib.sha256("\n".join(sorted(self.names)).encode())
        for key in sorted(self.masks):
            if key.rpartition(":")[2] in self.names:
                digest.update(key.encode() + self.masks[key].bits.tobytes())
        return digest.hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the region as JSON, and its masks beside it as safetensors, both atomically."""
        path = Path(path)
        document = {
            "format": FORMAT,
            "localizer": self.localizer,
            "settings": dict(self.settings),
            "chosen_parameters": self.parameters,
            "chosen_fraction": self.fraction,
            "seconds": self.seconds,
            "cost": self.cost,
            "origin": self.origin,
            "masks": {name: list(mask.shape) for name, mask in self.masks.items()},
            "entries": [asdict(e) for e in self.entries],
        }
        if self.masks:  # masks first: a region file without its masks must not be taken for a complete one
            write_bytes(path.with_suffix(".safetensors"), save({name: m.bits for name, m in self.masks.items()}))
        write_json(path, document)

    @staticmethod
    def load(path: str | Path) -> Region:
        """Read a region file. Raises ResultError where it is not one, or its masks are not beside it."""
        path = Path(path)
        document = schemas.read(path, schemas.RegionDocument)
        entries = tuple(Entry(**entry) for entry in document["entries"])
        sizes = {entry.name: entry.parameters for entry in entries}
        if len(sizes) < len(entries):
            raise ResultError(f"{path}: entries; a name occurs twice; list each matrix once")
        for entry in entries:
            if entry.selected is not None and entry.selected > entry.parameters:
                raise ResultError(
                    f"{path}: {entry.name}.selected: {entry.selected}; at most its {entry.parameters} parameters"
                )
        return Region(
            localizer=document["localizer"],
            settings=document["settings"],
            entries=entries,
            seconds=document["seconds"],
            origin=document.get("origin"),
            cost=document.get("cost"),
            masks=_read_masks(path, document.get("masks", {}), sizes),
        )


def _read_masks(path: Path, shapes: Mapping[str, list[int]], sizes: Mapping[str, int]) -> dict[str, Mask]:
    """Return the masks beside a region file, each of the size that its entry names."""
    if not shapes:
        return {}
    beside = path.with_suffix(".safetensors")
    if not beside.exists():
        raise ResultError(f"{beside}: no such file; it holds the masks of {path.name}; keep the two together")
    if (found := fault(beside)) is not None:
        raise ResultError(f"{beside}: {found}; localize again")
    bits = load_file(beside)
    masks = {}
    for key, shape in shapes.items():
        term, colon, name = key.rpartition(":")
        if name not in sizes or (colon and term not in TERMS):
            raise ResultError(f"{path}: masks.{key}; no entry has this name; localize again")
        if math.prod(shape) != sizes[name]:
            raise ResultError(
                f"{path}: masks.{key}: shape {shape}; its entry has {sizes[name]} parameters; localize again"
            )
        bit = bits.get(key)
        if bit is None or bit.dtype != np.uint8 or bit.shape != (math.ceil(sizes[name] / 8),):
            raise ResultError(f"{beside}: {key}; no mask of {sizes[name]} bits; localize again")
        masks[key] = Mask(bit, tuple(shape))
    return masks


def parameter_name(name: str, adapter: str = "default") -> str:
    """Return a parameter's name without the prefixes of DDP, FSDP, compile and the name of the active PEFT adapter.

    `module.base_model.model.model.layers.0.mlp.up_proj.lora_A.default.weight` → `layers.0.mlp.up_proj.lora_A.weight`
    is what stays the same whether the adapter was just added, loaded, or is trained on many devices; a leading
    `model.` of the architecture itself is kept.
    """
    for wrapper in ("_fsdp_wrapped_module.", "_orig_mod.", "_checkpoint_wrapped_module."):
        name = name.replace(wrapper, "")
    name = name.removeprefix("module.").removeprefix("base_model.model.")
    return name.replace(f".lora_A.{adapter}.", ".lora_A.").replace(f".lora_B.{adapter}.", ".lora_B.")


def module_of(name: str) -> str:
    """Return the module a matrix belongs to: LoRA's A and B belong to one, any other weight is its own."""
    for suffix in (".lora_A.weight", ".lora_B.weight"):
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name.removesuffix(".weight")
