"""The forward pass that computes logits, and states of a layer, at answer positions only."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from accelerate.utils import extract_model_from_parallel
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel

from scopewise.data.batch import Batch
from scopewise.errors import ModelError
from scopewise.models.packed import attention_in_line, packed
from scopewise.models.partitioned import in_parts
from scopewise.models.precision import computing
from scopewise.models.trial import counts_columns, reaching_far, same, window_of
from scopewise.models.work import count, uncounted


def answer_logits(model: nn.Module, batch: Batch, *, line: bool = False) -> Float[Tensor, "tokens vocab"]:
    """Return the logits that predict each answer token of the batch, in the order of `batch["label"]`.

    The head is the largest matrix of a small model and its output the largest tensor of any, so hidden states are
    gathered at the answer positions *before* it. A hook on the output embedding does this: the model's own forward
    runs unchanged, with its scaling and soft-capping, under any wrapper (DDP, FSDP, PEFT), for every architecture.

    Args:
        model: A Hugging Face causal LM, plain, with adapters, or wrapped.
        batch: As `collate` makes it, on the model's device.
        line: Whether rows may stand one after the other, without padding, where the model can have them so: for callers
            without hooks of their own, which would see a single long row.
    """
    batch = in_line(model, batch) if line else batch
    return _forward(model, batch, batch["position"])


def in_line(model: nn.Module, batch: Batch) -> Batch:
    """Return the batch with its rows one after the other, if that saves anything and the model can have them so."""
    mask = batch["attention_mask"]
    padded = "position_ids" not in batch and int(mask.sum()) < SPARSE * mask.numel()
    return packed(batch) if padded and can_pack(model, mask.shape[1]) else batch


SPARSE = 0.97
"""Share of tokens in a batch above which cutting its rows apart for attention costs more than the padding."""

_CAN_PACK: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def can_pack(model: nn.Module, seq: int) -> bool:
    """Return whether a model gives the same logits for rows of up to `seq` tokens that stand one after the other.

    It is tried once per model, on made-up ids whose states reach far, so that training changes nothing about it. Attention
    of other kinds than SDPA over the whole row, positions of other kinds than `position_ids`, and layers that mix
    neighbouring tokens fail the trial; windows are read from the configuration. Not tried are blocks that are compiled or
    computed again in the backward, and models spread over processes, which would have to try at once.
    """
    inner = unwrapped(model)
    config = inner.config
    if isinstance(inner, FSDPModule) or in_parts(inner) or counts_columns(inner):
        return False
    window = window_of(inner)
    if window is not None and seq > window:
        return False
    if config._attn_implementation != "sdpa" or config.get_text_config() is not config:
        return False
    if any(
        "forward" in vars(block) or getattr(block, "gradient_checkpointing", False) for block in decoder_blocks(inner)
    ):
        return False
    if inner not in _CAN_PACK:
        _CAN_PACK[inner] = _gives_the_same(inner)
    return _CAN_PACK[inner]


def _gives_the_same(model: nn.Module) -> bool:
    batch = to_device(trial_batch(output_embeddings(model).weight.shape[0]), device_of(model))  # type: ignore
    training = model.training
    model.eval()
    try:
        with uncounted(), torch.no_grad(), reaching_far(model):
            apart = answer_logits(model, batch)
            other = packed(batch)
            return same(_forward(model, other, other["position"]), apart)
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError):
        return False
    finally:
        model.train(training)


def trial_batch(vocab_size: int) -> Batch:
    """Return three rows of made-up ids, of 3, 6 and 4 tokens, with logits wanted everywhere."""
    lengths = torch.tensor([3, 6, 4])
    mask = torch.arange(6) < lengths.unsqueeze(1)
    ids = (torch.arange(18) * 7 + 4).view(3, 6) % vocab_size
    return {
        "input_ids": ids,
        "attention_mask": mask.long(),
        "position": mask.flatten().nonzero().squeeze(-1),
        "label": ids[mask],
        "row": torch.arange(3).repeat_interleave(lengths),
    }


def answer_outputs(
    model: nn.Module, batch: Batch, *, logits: bool, layer: int | None
) -> tuple[Float[Tensor, "tokens vocab"] | None, Float[Tensor, "tokens hidden"] | None]:
    """Return logits that predict the answer tokens, and the states after block `layer` that have read them.

    Args:
        model: As in `answer_logits`.
        batch: As in `answer_logits`; for states, collated with `last=True`. Raises ValueError where it is not.
        logits: Whether logits are wanted. Without them nothing above `layer` is computed.
        layer: Decoder block, from 0; None for no states.
    """
    if layer is None:
        return (answer_logits(model, batch) if logits else None), None
    captured: list[Tensor] = []
    # `position` is where a token is predicted; one further on the token itself has been read.
    read, mask = batch["position"] + 1, batch["attention_mask"].flatten()
    if int(read.max()) >= len(mask) or not bool(mask[read].all()):
        raise ValueError("batch: the answers' last tokens are not in it; collate it with last=True")

    def capture(_: nn.Module, __: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        captured.append(states_at(hidden, read))

    handle = decoder_blocks(model)[layer].register_forward_hook(capture)
    try:
        with contextlib.nullcontext() if logits else _cut_above(model, layer):
            found = _forward(model, batch, batch["position"] if logits else batch["position"][:0])
    finally:
        handle.remove()
    return (found if logits else None), captured[0]


def _forward(model: nn.Module, batch: Batch, position: Tensor) -> Tensor:
    """Run the model's own forward with the head at `position` (indices into [batch · seq]) alone."""
    return reading_head(model, batch, lambda hidden: states_at(hidden, position).unsqueeze(0))


def states_at(hidden: Float[Tensor, "batch seq hidden"], position: Tensor) -> Float[Tensor, "tokens hidden"]:
    """Return the states at some positions of the flattened [batch · seq].

    The gradient of `index_select` is a third of the work of that of an index in brackets.
    """
    return hidden.flatten(0, 1).index_select(0, position.to(hidden.device))


def reading_head(model: nn.Module, batch: Batch, read: Callable[[Tensor], Tensor]) -> Tensor:
    """Run the model's own forward; the head reads what `read` makes of the last states ([batch seq hidden])."""

    def gather(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (read(args[0]), *args[1:])

    inputs = {"input_ids": batch["input_ids"]}
    # Rows are padded on the right, where nothing that is read looks: without a mask the fastest attention can be taken.
    if "order" in batch:
        inputs["position_ids"] = batch["position_ids"]
    elif "position_ids" in batch:
        # Answers that share a prompt: positions of their own, and a mask in the model's dtype.
        dtype = next(model.parameters()).dtype
        inputs |= {
            "position_ids": batch["position_ids"],
            "attention_mask": batch["attention_mask"].clamp(min=torch.finfo(dtype).min).to(dtype),
        }
    head = output_embeddings(model)
    count(unwrapped(model), batch, head)
    handle = head.register_forward_pre_hook(gather)
    try:
        with (
            computing(model),
            attention_in_line(unwrapped(model), batch) if "order" in batch else contextlib.nullcontext(),
        ):
            output = model(**inputs, use_cache=False)
    finally:
        handle.remove()
    return output.logits.squeeze(0)


def decoder_blocks(model: nn.Module) -> nn.ModuleList:
    """Return the blocks of a decoder, through any wrapper. Raises ModelError where they are not one list of modules."""
    owner, name = _blocks_of(model)
    return getattr(owner, name)


def _blocks_of(model: nn.Module) -> tuple[nn.Module, str]:
    inner: Any = unwrapped(model)
    if isinstance(inner, PeftModel):
        inner = inner.get_base_model()
    layers = inner.config.get_text_config().num_hidden_layers
    for owner in inner.modules():
        for name, child in owner.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == layers:
                return owner, name
    raise ModelError(f"model: {type(inner).__name__} has no list of {layers} decoder blocks; states cannot be read")


@contextlib.contextmanager
def _cut_above(model: nn.Module, layer: int) -> Iterator[None]:
    """Take away the blocks above `layer` for the time of a forward."""
    owner, name = _blocks_of(model)
    whole = getattr(owner, name)
    setattr(owner, name, whole[: layer + 1])
    try:
        yield
    finally:
        setattr(owner, name, whole)


def unwrapped(model: nn.Module) -> Any:
    """Return the model below what accelerate puts around it; at once where it is one, for this is asked in every forward."""
    return model if isinstance(model, PreTrainedModel | PeftModel) else extract_model_from_parallel(model)


def output_embeddings(model: nn.Module) -> nn.Module:
    """Return the head of a causal LM, through any wrapper. Raises ModelError where it has none."""
    head = unwrapped(model).get_output_embeddings()  # type: ignore[attr-defined]
    if head is None:
        raise ModelError(f"model: {type(model).__name__} has no output embeddings; a causal language model is needed")
    return head


def device_of(model: nn.Module) -> torch.device:
    """Return the device that the model's inputs belong on: that of its first parameter."""
    return next(model.parameters()).device


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return the batch on `device`."""
    return {name: value.to(device) for name, value in batch.items()}


def answer_states(model: nn.Module, batch: Batch) -> list[Float[Tensor, "tokens hidden"]]:
    """Return the output of every decoder block at the positions that predict the answer tokens, before any final norm.

    Read by hooks: `output_hidden_states` gives the last block's states after the final norm.
    """
    captured: list[Tensor] = []

    def capture(_: nn.Module, __: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        captured.append(states_at(hidden, batch["position"]))

    handles = [block.register_forward_hook(capture) for block in decoder_blocks(model)]
    try:
        _forward(model, batch, batch["position"][:0])
    finally:
        for handle in handles:
            handle.remove()
    return captured


@contextlib.contextmanager
def patched(model: nn.Module, layer: int, batch: Batch, states: Float[Tensor, "tokens hidden"]) -> Iterator[None]:
    """Put other states in place of block `layer`'s output, at the positions that predict the answer tokens."""

    def replace(_: nn.Module, __: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        flat = hidden.flatten(0, 1).clone()
        flat[batch["position"].to(hidden.device)] = states.to(hidden)
        changed = flat.view_as(hidden)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle = decoder_blocks(model)[layer].register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


def read_out(model: nn.Module, states: Float[Tensor, "tokens hidden"]) -> Float[Tensor, "tokens vocab"]:
    """Return the logits that a model's final norm and head make of states: without scaling or capping after the head."""
    owner, name = _blocks_of(model)
    norms = [child for other, child in owner.named_children() if other != name and _is_norm(child)]
    for norm in norms[-1:]:  # a decoder's final norm is its last; one without has none
        states = norm(states)
    head = output_embeddings(model)
    return head(states.to(next(head.parameters()).dtype))


def _is_norm(module: nn.Module) -> bool:
    weights = list(module.parameters())
    return bool(weights) and all(weight.dim() == 1 for weight in weights)
