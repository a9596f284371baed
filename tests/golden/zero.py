"""The command line under DeepSpeed on a processor: `accelerate` takes DeepSpeed on accelerators alone, and this lifts that."""

from __future__ import annotations

from typing import Any

from accelerate import PartialState
from accelerate.utils import DeepSpeedPlugin, DistributedType

from scopewise.cli import main

_begin = PartialState.__init__


def _begin_on_cpu(self: PartialState, cpu: bool = False, **kwargs: Any) -> None:
    _begin(self, cpu, **kwargs)
    self.distributed_type = DistributedType.DEEPSPEED  # which is all that GPUs would be told apart by


_configure = DeepSpeedPlugin.__post_init__


def _configure_in_parts(self: DeepSpeedPlugin) -> None:
    _configure(self)
    # Parameters below a size are whole in every process, which would be all that a tiny model has.
    self.deepspeed_config["zero_optimization"]["stage3_param_persistence_threshold"] = 0


if __name__ == "__main__":
    PartialState.__init__ = _begin_on_cpu  # type: ignore[method-assign]
    DeepSpeedPlugin.__post_init__ = _configure_in_parts  # type: ignore[method-assign]
    main()
