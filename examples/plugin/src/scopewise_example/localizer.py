"""Attention only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from scopewise.errors import ConfigError
from scopewise.localizers.base import Localizer, Scopes
from scopewise.models.engine import Engine
from scopewise.models.matrices import matrices
from scopewise.region import Entry, Region, module_of


@dataclass(frozen=True, kw_only=True)
class Attention(Localizer):
    """The matrices of the attention layers, independent of the data.

    Attributes:
        part: Text that the names of the chosen matrices contain.
    """

    part: str = "attn"

    name: ClassVar[str] = "attention"

    def region(self, engine: Engine, scopes: Scopes) -> Region:
        """Return the region. Raises ConfigError where no matrix has `part` in its name."""
        entries = tuple(
            Entry(name, parameter.numel(), self.part in name, module_of(name))
            for name, parameter in matrices(engine.model).items()
        )
        if not any(entry.chosen for entry in entries):
            raise ConfigError(f"localizer attention: no matrix has {self.part!r} in its name; set another part")
        return Region(self.name, {"part": self.part}, entries)
