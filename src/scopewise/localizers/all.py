"""No localization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peft import PeftModel

from scopewise.localizers.base import Localizer, Scopes
from scopewise.models.engine import Engine
from scopewise.models.matrices import matrices
from scopewise.region import Entry, Region, module_of, parameter_name


@dataclass(frozen=True, kw_only=True)
class All(Localizer):
    """No restriction, every parameter is trained: the control that shows the effect of localization.

    All LoRA matrices, or all parameters of a model without adapters.

    Choose it as the control that shows whether localization has any effect. It has no knob.

    Source: the baselines of the paper.

    Deviations: none.
    """

    name: ClassVar[str] = "all"

    def region(self, engine: Engine, scopes: Scopes) -> Region:
        """Return the region of all LoRA matrices, or of all parameters of a model without adapters."""
        adapted = isinstance(engine.model, PeftModel)
        found = (
            matrices(engine.model) if adapted else {parameter_name(n): p for n, p in engine.model.named_parameters()}
        )
        entries = tuple(Entry(n, p.numel(), True, module_of(n)) for n, p in found.items())
        return Region(self.name, {}, entries)
