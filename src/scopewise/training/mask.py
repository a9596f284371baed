"""Choose a region and apply it to a model: parameters outside it get no gradient, no optimiser state and no weight decay."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from scopewise.config import LocalizeSection
from scopewise.errors import ConfigError
from scopewise.localizers.base import Scopes, check_arguments, localize_encoded
from scopewise.methods.base import Method
from scopewise.models.architecture import active_adapter
from scopewise.models.engine import Engine
from scopewise.models.parallel.fsdp import is_sharded, shard_like
from scopewise.region import TERMS, Region, parameter_name


class RegionMask(TrainerCallback):
    """Restricts training to the parameters of a region.

    Matrices outside the region do not require a gradient. For matrices partly in it, a hook zeroes the other entries of
    the gradient, which an optimiser with fresh moments then leaves unchanged. Weight decay would change them, so these
    matrices are excluded from the optimiser's weight decay and decayed here.

    Args:
        model: The model, with its adapter.
        region: None trains all parameters that require a gradient.

    Attributes:
        splits_terms: Whether the terms have different masks, so that `term` must be set before each backward.
        term: The term whose gradient is computed: `forget` or `retain`.

    Raises:
        ConfigError: the region is empty, or names parameters that the model does not have.
    """

    def __init__(self, model: nn.Module, region: Region | None) -> None:
        self.term: str | None = None
        self.splits_terms = region is not None and region.splits_terms
        self.masks: dict[str, dict[str | None, Tensor]] = {}
        self._masked: list[tuple[nn.Parameter, dict[str | None, Tensor]]] = []
        self._handles: list[Any] = []
        if region is None:
            return
        if self.splits_terms and is_sharded(model):
            raise ConfigError(
                f"region: {region.localizer} has a mask for each term, which FSDP2 cannot apply, since it sums the "
                "gradients of both terms; use ddp.yaml"
            )
        chosen = _chosen(model, region)
        adapter = active_adapter(model)
        for full_name, parameter in model.named_parameters():
            name = parameter_name(full_name, adapter)
            parameter.requires_grad_(name in chosen)
            terms = TERMS if self.splits_terms else (None,)
            masks = {term: region.mask(name, term) for term in terms}
            if name not in chosen or all(mask is None for mask in masks.values()):
                continue
            on_device = {
                term: torch.ones_like(parameter, dtype=torch.bool)
                if mask is None
                else shard_like(torch.from_numpy(mask), parameter)
                for term, mask in masks.items()
            }
            for mask in on_device.values():
                if mask.shape != parameter.shape:
                    raise ConfigError(
                        f"region: the mask of {name} has shape {tuple(mask.shape)}, the matrix {tuple(parameter.shape)}; "
                        "it was made for another model; localize again"
                    )
            self.masks[full_name] = on_device
            self._masked.append((parameter, on_device))

    def _mask_gradient(self, masks: dict[str | None, Tensor], gradient: Tensor) -> Tensor:
        return gradient * masks[self.term if self.splits_terms else None]

    @staticmethod
    def _mask_share(mask: Tensor, parameter: Tensor) -> None:
        assert parameter.grad is not None
        parameter.grad.mul_(mask)

    def changeable(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the trained parameters, each with a boolean mask of the entries that may change."""
        return {
            name: _union(self.masks[name]) if name in self.masks else torch.ones_like(parameter, dtype=torch.bool)
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Register the hooks that zero gradients."""
        if is_sharded(model):  # FSDP2 sets the gradients of its shards without calling tensor hooks
            self._handles = [
                parameter.register_post_accumulate_grad_hook(partial(self._mask_share, masks[None]))
                for parameter, masks in self._masked
            ]
        else:
            self._handles = [p.register_hook(partial(self._mask_gradient, masks)) for p, masks in self._masked]

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remove the hooks, so that later uses of the model get full gradients."""
        for handle in self._handles:
            handle.remove()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """Decay the region's entries of matrices partly in it, before the step as AdamW does."""
        if args.weight_decay and self._masked:
            shrink = optimizer.param_groups[0]["lr"] * args.weight_decay
            with torch.no_grad():
                for parameter, masks in self._masked:
                    parameter.mul_(1 - shrink * _union(masks))


def _union(masks: dict[str | None, Tensor]) -> Tensor:
    """Return which entries any term may change."""
    return torch.stack(list(masks.values())).any(0)


class CutBackward(TrainerCallback):
    """With activation checkpointing, ends the backward pass at the lowest trained matrix.

    Re-entrant checkpointing gives no gradients to a block whose input requires none, so LoRA's B would silently stay
    zero. The library therefore makes the embeddings' output require a gradient, which extends the backward pass to the
    first block. It does so for non-re-entrant checkpointing too, our default, which does not need it.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Remove the library's hooks on the embeddings."""
        if args.activation_checkpointing and not args.activation_checkpointing_kwargs["use_reentrant"]:
            model.disable_input_require_grads()


def chosen_region(
    region: Region | str | Path | None, method: Method, engine: Engine, scopes: Scopes, settings: LocalizeSection
) -> Region | None:
    """Return the region to train: as given, from a file, or from a localizer; None for all parameters.

    Args:
        region: A region, the path of a region file, or a localizer's name; None for the method's own localizer.
        method: The method.
        engine: Of the model before unlearning.
        scopes: The rows that a localizer compares.
        settings: Of the localizer.

    Raises:
        ConfigError: no retain rows for a localizer; or as the localizer.
    """
    if isinstance(region, Region):
        return region
    if isinstance(region, Path) or (isinstance(region, str) and region.endswith(".json")):
        return Region.load(region)
    name = region or method.localizer
    if name == "all":
        return None
    if not scopes.retain:
        raise ConfigError(f"retain_dataset: none given; the localizer {name!r} compares both scopes")
    check_arguments([name], settings.localizer_args)
    return localize_encoded(name, engine, scopes, settings.localizer_args)


def _chosen(model: nn.Module, region: Region) -> set[str]:
    """Return the names of the parameters to train.

    If a module in the region has LoRA matrices, these are trained instead of its weight.
    """
    adapter = active_adapter(model)
    present = {parameter_name(name, adapter) for name, _ in model.named_parameters()}
    chosen: set[str] = set()
    missing = []
    for entry in region.entries:
        if not entry.chosen:
            continue
        lora = {f"{entry.module}.lora_A.weight", f"{entry.module}.lora_B.weight"} & present
        if lora and entry.name not in lora:
            if entry.selected is not None:
                raise ConfigError(
                    f"region: only a part of {entry.name} may change, which its LoRA matrices cannot express; "
                    "localize again on the model with its adapter, or train all parameters"
                )
            chosen |= lora
        elif entry.name in present:
            chosen.add(entry.name)
        else:
            missing.append(entry.name)
    if missing:
        raise ConfigError(
            f"region: {len(missing)} of its {len(region.names)} matrices are not in this model, the first is "
            f"{min(missing)}; it was made for another model or another adapter; localize again"
        )
    if not chosen:
        raise ConfigError("region: no matrix is chosen; set 'chosen' to true for some of its entries")
    return chosen
