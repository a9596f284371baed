"""scopewise: knowledge unlearning in language models that stays in scope.

The public names below are imported when they are first used, so that `import scopewise` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scopewise.api import attack, evaluate, localize, unlearn
    from scopewise.data.load import load_benchmark
    from scopewise.data.rows import Benchmark, Row
    from scopewise.erasure.api import forget
    from scopewise.evaluation import Evaluation
    from scopewise.models.engine import Engine
    from scopewise.region import Region
    from scopewise.training.arguments import UnlearningConfig
    from scopewise.training.trainer import UnlearningTrainer

_WHERE = {
    "Benchmark": "scopewise.data.rows",
    "Engine": "scopewise.models.engine",
    "Evaluation": "scopewise.evaluation",
    "Region": "scopewise.region",
    "Row": "scopewise.data.rows",
    "UnlearningConfig": "scopewise.training.arguments",
    "UnlearningTrainer": "scopewise.training.trainer",
    "attack": "scopewise.api",
    "evaluate": "scopewise.api",
    "forget": "scopewise.erasure.api",
    "load_benchmark": "scopewise.data.load",
    "localize": "scopewise.api",
    "unlearn": "scopewise.api",
}

__all__ = [
    "Benchmark",
    "Engine",
    "Evaluation",
    "Region",
    "Row",
    "UnlearningConfig",
    "UnlearningTrainer",
    "attack",
    "evaluate",
    "forget",
    "load_benchmark",
    "localize",
    "unlearn",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'scopewise' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
