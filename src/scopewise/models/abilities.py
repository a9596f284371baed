"""Find out what a model supports, in one trial on made-up ids when an engine is made.

Each ability is tested by computing some logits in two ways. In a fresh model, states are so small that every layer is
nearly linear and every logit nearly 0, so two ways may seem to agree although they differ. The trial therefore scales the
states up (`enlarged`), and its result holds before and after training.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers.pytorch_utils import Conv1D

from scopewise.data.batch import Batch, Unit, collate_units, to_device
from scopewise.errors import ModelError
from scopewise.models.architecture import counts_columns, evaluation_mode, hooks
from scopewise.models.flops import uncounted
from scopewise.models.forward import Abilities, Forward
from scopewise.models.kernels import Kernels
from scopewise.models.kernels.packing import packed
from scopewise.models.merging import calls, shared_layers
from scopewise.models.steps import Steps

FAR = 100.0
"""Root mean square of logits in the trial of the head: beyond every cap that a model puts on them (30 and 50 are usual)."""

_FAILS = (ModelError, RuntimeError, ValueError, TypeError, AttributeError, LookupError, NotImplementedError)
"""What a model may raise at inputs that it does not take: it then lacks the ability."""


def forward_of(model: nn.Module, kernels: Literal["auto", "off"] = "auto") -> Forward:
    """Return a model's `Forward`, with its abilities.

    Args:
        model: A causal LM, complete: with its adapter, in its dtype, on its device or sharded.
        kernels: As the run file's `model.kernels`.
    """
    forward = Forward(model, kernels=Kernels.of(kernels))
    forward.abilities = find_abilities(forward)
    return forward


def find_abilities(forward: Forward) -> Abilities:
    """Return the abilities of a model. This takes ten forwards of a few tokens, and does not change the model.

    Args:
        forward: The model's plain forward; with adapters, and sharded, as it will be used.
    """
    columns = counts_columns(forward.model)  # then whole rows alone are right
    devices = [forward.device] if forward.device.type == "cuda" else []
    adapted = [layer for layer in forward.model.modules() if isinstance(layer, Linear)]
    with (
        evaluation_mode(forward.model),
        uncounted(),
        torch.no_grad(),
        torch.random.fork_rng(devices),
        calls(adapted) as called,
    ):
        abilities = Abilities(
            plain_head=_holds(_plain_head, forward),
            packs=not columns and _holds(_packs, forward),
            shares_prompts=not columns and _holds(_shares_prompts, forward),
            caches=not columns and _holds(_caches, forward),
        )
    # An adapter on a layer that no forward calls does nothing, though its weight may be read; merged, it would act.
    return replace(abilities, mergeable=frozenset(called - shared_layers(forward.model, adapted)))


def _holds(trial: Callable[[Forward], bool], forward: Forward) -> bool:
    try:
        return trial(forward)
    except _FAILS:
        return False


def _plain_head(forward: Forward) -> bool:
    """Models that scale or cap their logits do so after the head, and fail with logits beyond any cap."""
    if forward.head.weight.dim() != 2:
        return False
    batch = _rows(forward)
    with enlarged(forward.model, forward.head):
        whole = forward.logits(batch)
        with forward.autocast():
            made = forward.head(forward.head_inputs(batch))
    return same(made, whole)


def _packs(forward: Forward) -> bool:
    """Return whether rows can be packed: not with other attention than SDPA, other positions, or layers that mix tokens.

    Not tested on sharded models, whose hooks see other shapes. Attention windows are read from the configuration.
    """
    config = forward.inner.config
    if isinstance(forward.inner, FSDPModule):
        return False
    if config._attn_implementation != "sdpa" or config.get_text_config() is not config:
        return False
    batch = _rows(forward)
    with enlarged(forward.model):
        expected = forward.logits(batch)
        found = forward.logits(packed(batch))
    return same(found, expected)


def _shares_prompts(forward: Forward) -> bool:
    """Return whether answers can share a prompt: not with state-space layers or attention that does not take our mask."""
    ids = _ids(forward, 19)
    # Three answers, and one that begins as the first does.
    prompt = tuple(ids[:8])
    answers = (tuple(ids[8:13]), tuple(ids[13:16]), tuple(ids[16:18]), (*ids[8:10], ids[18]))
    together = to_device(collate_units([Unit(prompt, answers)]), forward.device)
    alone = to_device(collate_units([Unit(prompt, (answer,)) for answer in answers]), forward.device)
    with enlarged(forward.model):
        expected = forward.logits(alone)
        return same(forward.logits(together), expected)


def _caches(forward: Forward) -> bool:
    """Return whether a key-value cache works, also after rows are dropped; not if the state includes left padding."""
    ids = _ids(forward, 16)
    prompts = [tuple(ids[:3]), tuple(ids[3:9]), tuple(ids[9:13])]
    with enlarged(forward.model):
        # Whole rows first: they fix how far the states reach.
        whole, cached = (Steps(forward, prompts, 2, cached=kept) for kept in (False, True))
        if not same(cached.logits, whole.logits):
            return False
        for kept, token in (((0, 3, 4), ids[13]), ((0, 2), ids[14])):
            for steps in (whole, cached):
                steps.keep(kept)
                steps.read(torch.full((len(kept),), token, device=forward.device))
        return same(cached.logits, whole.logits)


def _ids(forward: Forward, count: int) -> Sequence[int]:
    return [(7 * i + 4) % forward.vocab_size for i in range(count)]


def _rows(forward: Forward) -> Batch:
    """Return three rows of made-up ids, of 3, 6 and 4 tokens, with logits wanted everywhere."""
    lengths = torch.tensor([3, 6, 4])
    mask = torch.arange(6) < lengths.unsqueeze(1)
    ids = torch.tensor(_ids(forward, 18)).view(3, 6)
    batch = {
        "input_ids": ids,
        "attention_mask": mask.long(),
        "position": mask.flatten().nonzero().squeeze(-1),
        "label": ids[mask],
        "row": torch.arange(3).repeat_interleave(lengths),
    }
    return to_device(batch, forward.device)


@contextlib.contextmanager
def enlarged(model: nn.Module, head: nn.Module | None = None) -> Iterator[None]:
    """Scale the outputs of linear layers and embeddings to a root mean square of 1 (of the head to `FAR`) in the context.

    Hooks multiply the outputs of each layer by a factor that is determined at its first call; weights are not changed.

    Args:
        model: The model.
        head: Its head, if the trial tests what comes after the head; None does not scale the head.
    """
    factors: dict[nn.Module, float] = {}

    def scale(module: nn.Module, _: Any, output: Any) -> Any:
        if not isinstance(output, Tensor) or not output.numel():
            return None
        if module not in factors:
            size = float(output.detach().float().square().mean().sqrt())
            wanted = FAR if module is head else 1.0
            factors[module] = wanted / size if 0 < size < float("inf") else 1.0
        return output * factors[module]

    layers = [m for m in model.modules() if isinstance(m, nn.Linear | Conv1D | nn.Embedding) or m is head]
    with hooks(layer.register_forward_hook(scale) for layer in layers):
        yield


def same(found: Tensor, expected: Tensor) -> bool:
    """Return whether two computations of the logits of some tokens [tokens vocab] differ only by rounding.

    Each token is compared separately, relative to its size. Computations that really differ are at least a sixth apart. In
    16 bits the rounding of 32 layers adds up to 0.03.
    """
    if found.shape != expected.shape:
        return False
    allowed = 0.1 if expected.dtype.itemsize == 2 else 5e-3
    found, expected = found.float(), expected.float()
    distance = (found - expected).norm(dim=-1) / expected.norm(dim=-1).clamp(min=1e-30)
    return bool((distance <= allowed).all())
