"""The contract of a localizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from peft import PeftModel
from torch import nn

from scopewise import registry
from scopewise.config import LocalizeSection
from scopewise.data.prompt import Encoded
from scopewise.errors import ConfigError
from scopewise.models.forward import output_embeddings
from scopewise.region import Region, parameter_name


class Localizer:
    """Base of the localizers: settings, and `region`.

    Args:
        settings: The run file's `localize` section.
    """

    name: ClassVar[str]
    needs_size: ClassVar[bool] = False
    """Whether it must be told how many parameters to choose (a control of another localizer)."""

    def __init__(self, settings: LocalizeSection | None = None) -> None:
        self.settings = settings or LocalizeSection()

    def region(
        self,
        model: nn.Module,
        forget: Sequence[Encoded],
        retain: Sequence[Encoded],
        seed: int,
        size: Region | None = None,
    ) -> Region:
        """Return the region of a model.

        Args:
            model: The model to be unlearned, with its adapter if it is to get one. It is left as it was.
            forget: Train rows of the forget scope, tokenised.
            retain: Train rows of the retain scope, tokenised.
            seed: Of anything drawn at random.
            size: The region a control takes its size from.
        """
        raise NotImplementedError


def localize_encoded(
    name: str,
    model: nn.Module,
    forget: Sequence[Encoded],
    retain: Sequence[Encoded],
    settings: LocalizeSection | None = None,
    seed: int = 0,
    size: Region | None = None,
) -> Region:
    """Run a localizer by name; a control that is given no `size` takes that of the `gradient` region."""
    cls = registry.lookup("localizers", name)
    if cls.needs_size and size is None:
        size = localize_encoded("gradient", model, forget, retain, settings, seed)
    region: Region = cls(settings).region(model, forget, retain, seed, size)
    return region


def matrices(model: nn.Module) -> Mapping[str, nn.Parameter]:
    """Return the matrices a region may choose from, by `parameter_name`, in the model's order.

    With an adapter: the A and B matrices of LoRA. Without: the weights of linear layers but the head (embeddings, head,
    norms and biases belong to no module of the paper, and a region never changes them).
    """
    if isinstance(model, PeftModel):
        found = {
            parameter_name(n): p
            for n, p in model.named_parameters()
            if ".lora_A.default." in n or ".lora_B.default." in n
        }
    else:
        head = output_embeddings(model)
        found = {
            parameter_name(f"{name}.weight"): module.weight  # type: ignore[misc]
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and module is not head
        }
    if not found:
        raise ConfigError(
            "localize: this model has no linear layer and no LoRA matrix to choose from; "
            "name its layers in lora.target_modules"
        )
    return found
