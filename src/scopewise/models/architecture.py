"""Find the parts of a causal LM inside any wrapper: its decoder blocks, lm_head, embeddings and active adapter."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from scopewise.errors import ConfigError, ModelError


def unwrap(model: nn.Module) -> Any:
    """Return the model inside accelerate's wrappers (DDP, a DeepSpeed engine)."""
    return model if isinstance(model, PreTrainedModel | PeftModel) else extract_model_from_parallel(model)


@contextlib.contextmanager
def hooks(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Remove hooks at the end of the context; those registered so far, too, if registering the next one fails."""
    with contextlib.ExitStack() as stack:
        for handle in handles:
            stack.enter_context(handle)
        yield


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode, and restore the mode of each afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            if module.training != mode:
                module.training = mode


@contextlib.contextmanager
def kept_flags(model: nn.Module) -> Iterator[None]:
    """Restore which parameters require a gradient; loading and switching adapters change that."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def lm_head(model: nn.Module) -> nn.Module:
    """Return the output embeddings of a causal LM. Raises ModelError if it has none."""
    head = unwrap(model).get_output_embeddings()  # type: ignore[attr-defined]
    if head is None:
        raise ModelError(f"model: {type(model).__name__} has no output embeddings; a causal language model is needed")
    return head


def device_of(model: nn.Module) -> torch.device:
    """Return the device that the model's inputs belong on: that of its first parameter."""
    return next(model.parameters()).device


def vocabulary_size(model: nn.Module) -> int:
    """Return how many ids a model has an embedding for."""
    embeddings: Any = unwrap(model).get_input_embeddings()  # type: ignore[operator]
    return int(getattr(embeddings, "num_embeddings", 0) or embeddings.weight.shape[0])


def context_tokens(model: nn.Module) -> int | None:
    """Return the context length of a model in tokens; None if its configuration does not give it."""
    return getattr(unwrap(model).config.get_text_config(), "max_position_embeddings", None)


def is_quantized(model: PreTrainedModel | PeftModel) -> bool:
    """Return whether the base is held in 4 bits: such a model stays on the device it was loaded to."""
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    return bool(getattr(base, "is_quantized", False))


def active_adapter(model: nn.Module) -> str:
    """Return the name of the adapter that the model computes with; `default` where it has no adapters.

    Raises:
        ConfigError: several adapters are active at a time, or none.
    """
    if not isinstance(model, PeftModel):
        return "default"
    names = list(model.active_adapters)
    if len(names) != 1:
        has = ", ".join(model.peft_config)
        raise ConfigError(
            f"model: active adapters {', '.join(names) or 'none'}; exactly one must be active; choose it with "
            f"model.set_adapter(...), of {has}"
        )
    return names[0]


def attention_window(model: nn.Module) -> int | None:
    """Return the shortest attention window of a layer, in tokens, from the configuration; None without a window.

    A window does not affect rows that are not longer. One that the configuration gives but disables still counts, which
    only costs speed.
    """
    config = unwrap(model).config.get_text_config()
    sizes = (value for name, value in vars(config).items() if _names_a_window(name))
    return min((size for size in sizes if type(size) is int and size > 0), default=None)


def _names_a_window(name: str) -> bool:
    return bool(re.search(r"window|local_attention|attention_chunk|local_attn", name)) and not re.search(
        r"layer|pattern|num_|block", name
    )


def counts_columns(model: nn.Module) -> bool:
    """Return whether a model uses a token's index in the tensor, besides its position id.

    Llama 4 scales attention by the index from position 8192 on, which a trial on a few tokens cannot show.
    """
    return bool(getattr(unwrap(model).config.get_text_config(), "attn_temperature_tuning", False))


# -- decoder blocks ---------------------------------------------------------------------------------------------------


def decoder_blocks(model: nn.Module) -> nn.ModuleList:
    """Return the decoder blocks. Raises ModelError if they are not one list of modules."""
    owner, name = _blocks_of(model)
    return getattr(owner, name)


def _blocks_of(model: nn.Module) -> tuple[nn.Module, str]:
    inner: Any = unwrap(model)
    if isinstance(inner, PeftModel):
        inner = inner.get_base_model()
    layers = inner.config.get_text_config().num_hidden_layers
    for owner in inner.modules():
        for name, child in owner.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == layers:
                return owner, name
    raise ModelError(
        f"model: {type(inner).__name__} has no list of {layers} decoder blocks; hidden states cannot be read"
    )


@contextlib.contextmanager
def first_blocks(model: nn.Module, count: int) -> Iterator[None]:
    """Run only the first `count` decoder blocks while the context is open."""
    owner, name = _blocks_of(model)
    whole = getattr(owner, name)
    setattr(owner, name, whole[:count])
    try:
        yield
    finally:
        setattr(owner, name, whole)


def read_out(model: nn.Module, states: Float[Tensor, "tokens hidden"]) -> Float[Tensor, "tokens vocab"]:
    """Return the logits of the final norm and the head on some states, without scaling or capping after the head."""
    owner, name = _blocks_of(model)
    norms = [child for other, child in owner.named_children() if other != name and _is_norm(child)]
    for norm in norms[-1:]:  # the final norm is the last one beside the blocks; some decoders have none
        states = norm(states)
    head = lm_head(model)
    return head(states.to(next(head.parameters()).dtype))


def _is_norm(module: nn.Module) -> bool:
    weights = list(module.parameters())
    return bool(weights) and all(weight.dim() == 1 for weight in weights)
