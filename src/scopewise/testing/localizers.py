"""Properties of every localizer."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from scopewise.localizers.base import Localizer, Scopes, localize_encoded
from scopewise.models.matrices import matrices
from scopewise.region import Region
from scopewise.testing.world import Property, World, check


def region_of(localizer: Localizer, model: torch.nn.Module, world: World, seed: int = 0) -> Region:
    """Return a localizer's region of a model, from the rows of the world; for a control, also compute the region it copies."""
    engine, size = world.engine(model), None
    if localizer.takes_size_of is not None:
        size = localize_encoded(localizer.takes_size_of, engine, Scopes(*world.items, seed))
    return localizer.region(engine, Scopes(*world.items, seed, size))


def same_region(localizer: Localizer, world: World, adapter: bool) -> None:
    """The same seed gives the same region; it names parameters that the model has, and is not empty."""
    model = world.model(adapter, trained=True)
    first, again = (region_of(localizer, model, world, seed=3) for _ in range(2))
    check(first.entries == again.entries, "another region for the same seed")
    check(bool(first.names), "nothing is chosen")
    present = [entry.name for entry in first.entries]
    if localizer.name != "all":  # which takes embeddings and norms too
        wanted = list(matrices(model))
        check(present == wanted, f"entries of {present[:3]} …; every matrix in the model's order is {wanted[:3]} …")


def left_as_it_was(localizer: Localizer, world: World, adapter: bool) -> None:
    """Localization does not change values, gradients, flags, modes or hooks of the model."""
    for training in (True, False):
        model = world.model(adapter).train(training)
        for i, parameter in enumerate(model.parameters()):  # any pattern of flags and gradients
            parameter.requires_grad_(i % 3 != 0)
            parameter.grad = torch.full_like(parameter, 7.0) if i % 4 == 1 else None
        before = [
            (p.detach().clone(), p.requires_grad, None if p.grad is None else p.grad.clone())
            for p in model.parameters()
        ]
        modes = [m.training for m in model.modules()]
        region_of(localizer, model, world)
        for (name, parameter), (value, flag, gradient) in zip(model.named_parameters(), before, strict=True):
            check(torch.equal(parameter, value), f"{name} has other values")
            check(parameter.requires_grad == flag, f"{name}.requires_grad is {parameter.requires_grad}")
            same = parameter.grad is None if gradient is None else parameter.grad is not None
            check(same and (gradient is None or torch.equal(parameter.grad, gradient)), f"{name}.grad is another")
        check([m.training for m in model.modules()] == modes, "a module is in another mode")
        hooks = [n for n, p in model.named_parameters() if p._backward_hooks or p._post_accumulate_grad_hooks]
        check(not hooks, f"hooks are left on {hooks[:3]}")


def kept_in_a_file(localizer: Localizer, world: World) -> None:
    """Saving and loading a region does not change it."""
    region = region_of(localizer, world.model(), world)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "region.json"
        region.save(path)
        again = Region.load(path)
    check(again.entries == region.entries, "other entries")
    check(dict(again.settings) == dict(region.settings), f"settings {again.settings}; made with {region.settings}")
    check(again.content_hash() == region.content_hash(), "other masks")


PROPERTIES: Mapping[str, Property] = {"saved and read, a region is the same": kept_in_a_file}
"""Name → property of a localizer."""

ON_MODELS: Mapping[str, Property] = {
    "the same seed gives the same region": same_region,
    "the model is left as it was": left_as_it_was,
}
"""Name → property of a localizer that is tested with LoRA and with all parameters."""
