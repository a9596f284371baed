"""A region applied to a model: what is outside of it gets no gradient, no optimiser state and no weight decay."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from scopewise.errors import ConfigError
from scopewise.models.architecture import active_adapter
from scopewise.models.parallel.fsdp import is_sharded, shard_like
from scopewise.region import TERMS, Region, parameter_name


class RegionMask(TrainerCallback):
    """Lets only a region's parameters move, for as long as the model is trained.

    Whole matrices outside the region do not require a gradient. In a matrix that may change in part, a hook zeroes the
    gradient elsewhere: an optimiser that begins with empty moments then leaves those entries as they are. Weight decay
    would not, so such matrices are taken out of the optimiser's own and decayed here.

    Args:
        model: The model, with its adapter.
        region: None lets everything move that requires a gradient.

    Attributes:
        splits_terms: Whether `term` has to be set before each backward.
        term: `forget` or `retain`: which term's gradient is being computed.

    Raises:
        ConfigError: the region chooses nothing, or names parameters that the model does not have.
    """

    def __init__(self, model: nn.Module, region: Region | None) -> None:
        self.term: str | None = None
        self.splits_terms = region is not None and region.splits_terms
        self.masks: dict[str, dict[str | None, Tensor]] = {}
        self._partial: list[tuple[nn.Parameter, Tensor]] = []
        self._masked_parameters: list[tuple[nn.Parameter, dict[str | None, Tensor]]] = []
        self._handles: list[Any] = []
        if region is None:
            return
        if self.splits_terms and is_sharded(model):
            raise ConfigError(
                f"region: {region.localizer} has a mask for each term, which FSDP2 cannot apply, since it adds the terms' "
                "gradients up; take ddp.yaml"
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
            self._partial.append((parameter, torch.stack(list(on_device.values())).any(0)))
            self._masked_parameters.append((parameter, on_device))

    def _masked(self, masks: dict[str | None, Tensor], gradient: Tensor) -> Tensor:
        return gradient * masks[self.term if self.splits_terms else None]

    @staticmethod
    def _mask_share(mask: Tensor, parameter: Tensor) -> None:
        assert parameter.grad is not None
        parameter.grad.mul_(mask)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Begin to zero gradients."""
        if is_sharded(model):  # its gradients are put where they belong, with no hook on the way
            self._handles = [
                p.register_post_accumulate_grad_hook(partial(self._mask_share, masks[None]))
                for p, masks in self._masked_parameters
            ]
        else:
            self._handles = [p.register_hook(partial(self._masked, masks)) for p, masks in self._masked_parameters]

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave the gradients alone again: whoever looks at the model next has to see all of them."""
        for handle in self._handles:
            handle.remove()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """Decay what may change of the matrices that may change in part (AdamW decays before its step, too)."""
        if args.weight_decay and self._partial:
            shrink = optimizer.param_groups[0]["lr"] * args.weight_decay
            with torch.no_grad():
                for parameter, mask in self._partial:
                    parameter.mul_(1 - shrink * mask)


def _chosen(model: nn.Module, region: Region) -> set[str]:
    """Return the names of the parameters that may change.

    Where the model has LoRA matrices on a module that the region names by its weight, those are meant.
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
                    f"region: {entry.name} may change in part, which LoRA's matrices on it cannot express; localize again "
                    "on the model with its adapter, or train all parameters"
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
