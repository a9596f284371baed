"""The optimiser by name, checked before anything is trained."""

from __future__ import annotations

import importlib.util

from transformers.training_args import OptimizerNames

from scopewise.errors import ConfigError
from scopewise.registry import nearest

_BITSANDBYTES = ("paged", "8bit", "bnb")


def check_optimizer(name: str, where: str) -> None:
    """Raise ConfigError for an optimiser that `transformers` does not know, or whose library is not installed."""
    known = [str(option.value) for option in OptimizerNames]
    if name not in known:
        raise ConfigError(
            f"{where}.optimizer: {name!r}; a name of transformers, such as {known[0]}.{nearest(name, known)}"
        )
    if any(part in name for part in _BITSANDBYTES) and importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"{where}.optimizer: {name}; bitsandbytes is not installed; pip install 'scopewise[quantize]', or take "
            "adamw_torch_fused"
        )
