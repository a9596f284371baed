"""Matrices chosen by name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from scopewise.errors import ConfigError
from scopewise.localizers.base import ARGUMENTS, Localizer, Scopes
from scopewise.models.engine import Engine
from scopewise.models.matrices import matrices
from scopewise.region import Entry, Region, module_of


@dataclass(frozen=True, kw_only=True)
class Named(Localizer):
    r"""Matrices whose name matches a pattern, independent of the data.

        { θ_i : pattern is found in the name of θ_i }

    Choose it if you know which layers or modules to train, such as `layers\.[567]\.mlp\.down_proj`, which RMU's authors
    train.

    Source: ours.

    Deviations: none.

    Attributes:
        pattern: A regular expression, searched in the name. Default: ours, which matches every matrix.
    """

    pattern: str = "."

    name: ClassVar[str] = "named"

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"pattern: {self.pattern!r} is not a regular expression ({error}); correct it") from None

    def check(self, model: nn.Module) -> None:
        """Raise ConfigError if nothing matches; the message gives examples of names."""
        self._found(model)

    def region(self, engine: Engine, scopes: Scopes) -> Region:
        """Return the region. Raises ConfigError if nothing matches; the message gives examples of names."""
        parameters, found = matrices(engine.model), self._found(engine.model)
        entries = tuple(
            Entry(name, parameter.numel(), found[name], module_of(name)) for name, parameter in parameters.items()
        )
        return Region(self.name, {"pattern": self.pattern}, entries)

    def _found(self, model: nn.Module) -> dict[str, bool]:
        found = {name: bool(re.search(self.pattern, name)) for name in matrices(model)}
        if not any(found.values()):
            raise ConfigError(
                f"{ARGUMENTS}.pattern: {self.pattern!r} matches none of {len(found)} matrices; they are named like "
                f"{next(iter(found))}"
            )
        return found
