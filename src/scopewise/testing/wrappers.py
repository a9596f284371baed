"""Properties of every wrapper around any loss."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scopewise.errors import ConfigError
from scopewise.methods.base import Method
from scopewise.methods.wrappers.base import Wrapper
from scopewise.testing.methods import region_of
from scopewise.testing.world import NotApplicableError, Property, World, check, fill_adapter, furthest, parameters_of

STEPS = 2
"""Some wrappers do nothing in the first step."""


def _trained(wrapper: Wrapper, method: Method, world: World, model: Any = None, **given: Any) -> dict[str, Tensor]:
    """Return the parameters after a few steps."""
    resume = given.pop("resume", None)
    model = world.model() if model is None else model
    trainer = world.trainer(model, method, wrappers=[wrapper], **{"max_steps": STEPS, "learning_rate": 1e-3, **given})
    trainer.train(resume_from_checkpoint=resume)
    return parameters_of(trainer.model)


def micro_batches(wrapper: Wrapper, world: World, method: Method) -> None:
    """Steps on eight rows give the same parameters with one micro-batch and with eight."""
    start = parameters_of(world.model())
    after = [
        _trained(wrapper, method, world, per_device_train_batch_size=size, gradient_accumulation_steps=8 // size)
        for size in (8, 1)
    ]
    step, difference = furthest(after[0], start), furthest(after[0], after[1])
    check(step > 0, "the steps change no parameter")
    check(difference < 1e-3 * step, f"parameters differ by {difference:.3g} after steps of {step:.3g}")


def something_changes(wrapper: Wrapper, world: World, method: Method) -> None:
    """The wrapper changes the steps."""
    plain = world.trainer(world.model(), method, max_steps=STEPS, learning_rate=1e-3)
    plain.train()
    difference = furthest(parameters_of(plain.model), _trained(wrapper, method, world))
    check(difference > 0, "the steps are those without the wrapper")


def only_the_region(wrapper: Wrapper, world: World, method: Method) -> None:
    """Training changes the parameters of the region, and no others."""
    model = world.model()
    region = region_of(model, lambda n: "layers.0.self_attn.q_proj" in n)
    start = parameters_of(model)
    after = _trained(wrapper, method, world, model, region=region)
    changed = {n for n in start if not torch.equal(start[n], after[n])}
    if getattr(wrapper, "where", "region") == "all":
        raise NotApplicableError("it changes all parameters")
    check(changed == region.names, f"moved: {sorted(changed)[:4]}; chosen: {sorted(region.names)}")


def adapter(wrapper: Wrapper, world: World, method: Method) -> None:
    """With an adapter, training changes the adapter and not the base; or the adapter is refused before training."""
    model = world.model(adapter=True)
    fill_adapter(model)
    start = parameters_of(model)
    try:
        after = _trained(wrapper, method, world, model)
    except ConfigError as error:
        raise NotApplicableError(str(error)) from None
    changed = {n for n in start if not torch.equal(start[n], after[n])}
    check(bool(changed), "the steps change no parameter")
    check(all("lora_" in n for n in changed), f"moved: {sorted(n for n in changed if 'lora_' not in n)[:4]}")


def resumed(wrapper: Wrapper, world: World, method: Method) -> None:
    """A training that was resumed from a checkpoint gives the numbers of an uninterrupted one."""
    with tempfile.TemporaryDirectory() as folder:
        given: dict[str, Any] = {
            "max_steps": 3, "save_strategy": "steps", "save_steps": 2.0, "optim": "adamw_torch", "output_dir": folder
        }  # fmt: skip
        straight = _trained(wrapper, method, world, **given)
        again = _trained(wrapper, method, world, **given, resume=str(Path(folder) / "checkpoint-2"))
    difference = furthest(straight, again)
    check(difference == 0, f"parameters differ by {difference:.3g}")


PROPERTIES: Mapping[str, Property] = {
    "micro-batches change nothing": micro_batches,
    "something changes": something_changes,
    "only the region moves": only_the_region,
    "an adapter alone moves": adapter,
    "resumed is straight through": resumed,
}
"""Name → property of a wrapper around a method."""
