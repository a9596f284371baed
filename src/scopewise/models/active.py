"""Which adapter of a model is meant: the active one, whatever its name."""

from __future__ import annotations

from peft import PeftModel
from torch import nn

from scopewise.errors import ConfigError


def active_adapter(model: nn.Module) -> str:
    """Return the name of the adapter that the model computes with; `default` where it has no adapters.

    Raises:
        ConfigError: several adapters are active at a time, or none.
    """
    if not isinstance(model, PeftModel):
        return "default"
    names = list(model.active_adapters)
    if len(names) != 1:
        has = ", ".join(model.peft_config)
        raise ConfigError(
            f"model: active adapters {', '.join(names) or 'none'}; one has to be active; choose it by "
            f"model.set_adapter(...), of {has}"
        )
    return names[0]
