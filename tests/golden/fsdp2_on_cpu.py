"""The command line under FSDP2 on CPU devices, for the tests: `accelerate` leaves them out of the devices it shards on.

That is all this lifts; what it would do on an accelerator it then does here.
"""

from __future__ import annotations

import os
from typing import Any

from accelerate.state import AcceleratorState, DistributedType

from scopewise.cli import main

_begin = AcceleratorState.__init__


def _with_fsdp(self: AcceleratorState, *args: Any, **kwargs: Any) -> None:
    _begin(self, *args, **kwargs)
    plugin = kwargs.get("fsdp_plugin")
    if plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.FSDP
        self.fsdp_plugin = plugin


if __name__ == "__main__":
    assert os.environ["ACCELERATE_USE_FSDP"] == "true"
    AcceleratorState.__init__ = _with_fsdp  # type: ignore[method-assign]
    main()
