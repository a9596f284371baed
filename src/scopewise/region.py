"""A region: which matrices of a model may change, as a file that can be looked at, edited and used again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from scopewise.errors import ResultError
from scopewise.record import write_json

FORMAT = "scopewise-region/1"


@dataclass(frozen=True)
class Entry:
    """One matrix of the model and what the localizer found.

    Attributes:
        name: Parameter name, without the wrappers' prefixes, as `parameter_name` gives it.
        parameters: Number of its entries.
        chosen: Whether unlearning may change it. Edit this to change the region.
        module: The unit it was decided with.
        cosine: cos_i of Eq. 8, -1 to 1; None where a gradient is zero or the localizer uses none.
        magnitude: mean |G_UL| of its unit, in nats per unit of the parameter.
        magnitude_retain: The same of G_RT.
    """

    name: str
    parameters: int
    chosen: bool
    module: str
    cosine: float | None = None
    magnitude: float | None = None
    magnitude_retain: float | None = None


@dataclass(frozen=True)
class Region:
    """A mask over parameters, matrix by matrix.

    Attributes:
        localizer: Which localizer made it.
        settings: Its settings and thresholds.
        entries: Every matrix it could choose from.
        seconds: What localizing took.
        origin: Manifest of where it was made.
    """

    localizer: str
    settings: Mapping[str, Any]
    entries: tuple[Entry, ...]
    seconds: float = 0.0
    origin: Mapping[str, Any] | None = None

    @property
    def names(self) -> frozenset[str]:
        """Names of the matrices that may change."""
        return frozenset(e.name for e in self.entries if e.chosen)

    @property
    def parameters(self) -> int:
        """Number of single parameters that may change."""
        return sum(e.parameters for e in self.entries if e.chosen)

    @property
    def fraction(self) -> float:
        """Share (0-1) of the localizable parameters that may change."""
        return self.parameters / max(1, sum(e.parameters for e in self.entries))

    def with_origin(self, origin: Mapping[str, Any]) -> Region:
        """Return the region with its manifest."""
        return replace(self, origin=dict(origin))

    def content_hash(self) -> str:
        """Return the SHA-256 (hex) of the names of the matrices that may change."""
        return hashlib.sha256("\n".join(sorted(self.names)).encode()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the region as JSON, atomically."""
        document = {
            "format": FORMAT,
            "localizer": self.localizer,
            "settings": dict(self.settings),
            "chosen_parameters": self.parameters,
            "chosen_fraction": self.fraction,
            "seconds": self.seconds,
            "origin": self.origin,
            "entries": [asdict(e) for e in self.entries],
        }
        write_json(path, document)

    @staticmethod
    def load(path: str | Path) -> Region:
        """Read a region file. Raises ResultError where it is not one."""
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
            if document["format"] != FORMAT:
                raise ResultError(f"{path}: format {document['format']!r}; {FORMAT!r} is read; localize again")
            return Region(
                localizer=document["localizer"],
                settings=document["settings"],
                entries=tuple(Entry(**entry) for entry in document["entries"]),
                seconds=document["seconds"],
                origin=document["origin"],
            )
        except OSError as error:
            raise ResultError(f"{path}: {error.strerror}; give a region file made by `scopewise localize`") from None
        except (ValueError, KeyError, TypeError) as error:
            raise ResultError(f"{path}: not a region file ({error}); `scopewise localize` writes one") from None


def parameter_name(name: str) -> str:
    """Return a parameter's name without the prefixes of DDP, FSDP, compile and the name of the PEFT adapter.

    `module.base_model.model.model.layers.0.mlp.up_proj.lora_A.default.weight` → `layers.0.mlp.up_proj.lora_A.weight`
    is what stays the same whether the adapter was just added, loaded, or is trained on many devices; a leading
    `model.` of the architecture itself is kept.
    """
    for wrapper in ("_fsdp_wrapped_module.", "_orig_mod.", "_checkpoint_wrapped_module."):
        name = name.replace(wrapper, "")
    name = name.removeprefix("module.").removeprefix("base_model.model.")
    return name.replace(".lora_A.default.", ".lora_A.").replace(".lora_B.default.", ".lora_B.")


def module_of(name: str) -> str:
    """Return the module a matrix belongs to: LoRA's A and B belong to one, any other weight is its own."""
    for suffix in (".lora_A.weight", ".lora_B.weight"):
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name.removesuffix(".weight")
