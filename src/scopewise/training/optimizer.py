"""The optimiser by name, checked before anything is trained."""

from __future__ import annotations

import importlib.util

from transformers.training_args import OptimizerNames

from scopewise.errors import ConfigError
from scopewise.registry import nearest

_LIBRARIES = {
    "galore": ("galore_torch", "galore-torch"),
    "apollo": ("apollo_torch", "apollo-torch"),
    "lomo": ("lomo_optim", "lomo-optim"),
    "grokadamw": ("grokadamw", "grokadamw"),
    "schedule_free": ("schedulefree", "schedulefree"),
    "stable_adamw": ("optimi", "torch-optimi"),
    "anyprecision": ("torchdistx", "torchdistx"),
    "adamw_torch_8bit": ("torchao", "torchao"),
    "adamw_torch_4bit": ("torchao", "torchao"),
    "npu": ("torch_npu", "torch-npu"),
    "xla": ("torch_xla", "torch-xla"),
    **dict.fromkeys(("paged", "8bit", "bnb", "lion", "ademamix"), ("bitsandbytes", "'scopewise[quantize]'")),
}
"""Part of an optimiser's name → the module it needs and the package to install; the first match counts."""


def check_optimizer(name: str, where: str) -> None:
    """Raise ConfigError if `transformers` does not know the optimiser, or its library is not installed."""
    known = [str(option.value) for option in OptimizerNames]
    if name not in known:
        raise ConfigError(
            f"{where}.optim: {name!r}; use a name that transformers knows, such as {known[0]}.{nearest(name, known)}"
        )
    module, package = next((needed for part, needed in _LIBRARIES.items() if part in name), ("torch", "torch"))
    if importlib.util.find_spec(module) is None:
        raise ConfigError(
            f"{where}.optim: {name}; {module} is not installed; pip install {package}, or use adamw_torch_fused"
        )
