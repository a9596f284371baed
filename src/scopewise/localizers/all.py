"""No localization."""

from __future__ import annotations

from collections.abc import Sequence

from peft import PeftModel
from torch import nn

from scopewise.data.prompt import Encoded
from scopewise.localizers.base import Localizer
from scopewise.models.matrices import matrices
from scopewise.region import Entry, Region, module_of, parameter_name


class All(Localizer):
    """No restriction: every parameter that would be trained; the control that asks what localization does.

    All LoRA matrices, or all parameters of a model without adapters.

    Choose it as the control that asks what localization does at all; it has no knob.

    Source: the baselines of the paper.

    Deviations: none.
    """

    name = "all"

    def region(
        self,
        model: nn.Module,
        forget: Sequence[Encoded],
        retain: Sequence[Encoded],
        seed: int,
        size: Region | None = None,
    ) -> Region:
        """Return the region of all LoRA matrices, or of all parameters of a model without adapters."""
        adapted = isinstance(model, PeftModel)
        found = matrices(model) if adapted else {parameter_name(n): p for n, p in model.named_parameters()}
        entries = tuple(Entry(n, p.numel(), True, module_of(n)) for n, p in found.items())
        return Region(self.name, {}, entries)
