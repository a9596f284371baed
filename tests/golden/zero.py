"""The command line under DeepSpeed on a processor: `accelerate` takes DeepSpeed on accelerators alone, and this lifts that."""

from __future__ import annotations

from typing import Any

from accelerate import PartialState
from accelerate.utils import DistributedType

from scopewise.cli import main

_begin = PartialState.__init__


def _begin_on_cpu(self: PartialState, cpu: bool = False, **kwargs: Any) -> None:
    _begin(self, cpu, **kwargs)
    self.distributed_type = DistributedType.DEEPSPEED  # which is all that GPUs would be told apart by


if __name__ == "__main__":
    PartialState.__init__ = _begin_on_cpu  # type: ignore[method-assign]
    main()
