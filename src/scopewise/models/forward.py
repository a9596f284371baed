"""One forward pass over a batch: logits, losses and states only at the answer positions, for every architecture."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from scopewise.data.batch import Batch
from scopewise.models.architecture import (
    attention_window,
    decoder_blocks,
    device_of,
    evaluation_mode,
    first_blocks,
    hooks,
    lm_head,
    unwrap,
)
from scopewise.models.chunked_cross_entropy import TokenLoss, chunk_tokens, in_chunks
from scopewise.models.flops import count_forward
from scopewise.models.kernels import Kernels
from scopewise.models.precision import autocast, mixed_dtype
from scopewise.ops import TokenStatistics, kl_and_gradient, mean_log_probs, nll_and_gradient, token_statistics


@dataclass(frozen=True)
class Abilities:
    """What a model supports beyond a plain forward over padded rows. The default is nothing, which is always correct.

    Attributes:
        plain_head: Its logits are the output of the head; they are not scaled or capped afterwards.
        packs: Rows give the same logits if they are packed one after the other, without padding.
        shares_prompts: Answers that share a prompt's forward, under a mask, give the same logits.
        caches: Generation from a key-value cache gives the same logits as from whole rows.
        mergeable: LoRA layers that give the same result if they are merged: the model calls them, and they do not share
            their weight.
    """

    plain_head: bool = False
    packs: bool = False
    shares_prompts: bool = False
    caches: bool = False
    mergeable: frozenset[Linear] = frozenset()


class Forward:
    """A model's forward pass, with the optimisations that the model supports.

    The head is the largest matrix of a small model, and its output the largest tensor of any model, so hidden states are
    gathered at the answer positions *before* the head. A hook on the head does this: the model's own forward runs
    unchanged, with its scaling and soft-capping, under any wrapper (DDP, FSDP, PEFT), for every architecture.

    The object stores what it found out about the model, so make a new one if adapters are added or parameters change their
    dtype.

    Args:
        model: A Hugging Face causal LM, plain, with adapters, or wrapped by accelerate.
        abilities: From `find_abilities`; None for a plain forward.
        kernels: Which optional kernels it runs with; None for none.
        zero3: Whether DeepSpeed shards the model's parameters, each gathered only while its layer runs.

    Attributes:
        model: The model.
        inner: The model without accelerate's wrappers.
        head: Its output embeddings.
        window: The shortest attention window of a layer in tokens, or None.
    """

    def __init__(
        self,
        model: nn.Module,
        abilities: Abilities | None = None,
        kernels: Kernels | None = None,
        *,
        zero3: bool = False,
    ) -> None:
        self.model, self.zero3 = model, zero3
        self.abilities, self.kernels = abilities or Abilities(), kernels or Kernels()
        self.inner = unwrap(model)
        self.head: Any = lm_head(model)
        self.window = attention_window(model)
        self._dtype = mixed_dtype(model)

    def on(self, model: nn.Module, *, zero3: bool = False) -> Forward:
        """Return the forward of the same network in another object: wrapped, copied, or after a change of dtype."""
        return Forward(model, self.abilities, self.kernels, zero3=zero3)

    @property
    def device(self) -> torch.device:
        """The device of the model's inputs."""
        return device_of(self.model)

    @property
    def vocab_size(self) -> int:
        """Number of logits per token."""
        return int(self.head.weight.shape[0])

    @cached_property
    def blocks(self) -> nn.ModuleList:
        """The decoder blocks. Raises ModelError where they are not one list of modules."""
        return decoder_blocks(self.model)

    # -- logits and losses --------------------------------------------------------------------------------------------

    def logits(self, batch: Batch, *, packed: bool = False) -> Float[Tensor, "tokens vocab"]:
        """Return the logits that predict each answer token of the batch, in the order of `batch["label"]`.

        Args:
            batch: As `collate` makes it, on the model's device.
            packed: Whether rows may be packed if the model supports it. Hooks of the caller would see a single long row.
        """
        batch = self._pack(batch) if packed else batch
        return self._logits_at(batch, batch["position"])

    def head_inputs(self, batch: Batch, *, packed: bool = False) -> Float[Tensor, "tokens hidden"]:
        """Return the states the head reads at the positions that predict the answer tokens, without running the head."""
        batch = self._pack(batch) if packed else batch
        read: list[Tensor] = []

        def keep(hidden: Tensor) -> Tensor:
            read.append(states_at(hidden, batch["position"]))
            return hidden[:, :0]

        self._run(batch, keep)
        return read[0]

    def nll(
        self, batch: Batch, labels: Int[Tensor, "repeats tokens"] | None = None, *, packed: bool = False
    ) -> Float[Tensor, "tokens"]:
        """Return the cross-entropy of each answer token in nats, averaged over several labellings of it.

        Args:
            batch: As in `logits`.
            labels: None takes the batch's own.
            packed: As in `logits`.
        """
        wanted = batch["label"].unsqueeze(0) if labels is None else labels
        if not self.chunked:
            return mean_nll(self.logits(batch, packed=packed), wanted)
        return self.nll_of(self.head_inputs(batch, packed=packed), wanted)

    def statistics(self, batch: Batch, moments: bool) -> TokenStatistics:
        """Return `token_statistics` of each answer token. The head runs once where several are predicted at one position."""
        batch = self._pack(batch)
        position, of = batch["position"].unique(return_inverse=True)
        batch, labels = {**batch, "position": position}, batch["label"]
        if not self.chunked:
            return token_statistics(self.logits(batch), labels, moments, of)
        states = self.head_inputs(batch)
        size = chunk_tokens(self.head, states)
        order = of.argsort(stable=True)
        tokens = (of // size).bincount(minlength=-(-len(states) // size)).tolist()
        with self.autocast():
            parts = [
                token_statistics(self.head(part), labels[own], moments, of[own] % size)
                for part, own in zip(states.split(size), order.split(tokens), strict=True)
            ]
        back = order.argsort()
        return TokenStatistics(*(torch.cat(column)[back] for column in zip(*parts, strict=True)))

    @property
    def chunked(self) -> bool:
        """Whether losses may be computed in chunks, from the states that the head reads.

        The head must be plain, get no gradient, and not be sharded.
        """
        return (
            self.abilities.plain_head
            and not self.zero3
            and self.head.weight.dim() == 2
            and not any(
                isinstance(p, DTensor) or (p.requires_grad and torch.is_grad_enabled()) for p in self.head.parameters()
            )
        )

    def nll_of(
        self, states: Float[Tensor, "tokens hidden"], labels: Int[Tensor, "repeats tokens"]
    ) -> Float[Tensor, "tokens"]:
        """Return what `nll` does, from `head_inputs`, where losses are `chunked`."""
        return self._in_chunks(nll_and_gradient, states, labels.T)

    def kl_of(
        self, reference: Float[Tensor, "tokens hidden"], states: Float[Tensor, "tokens hidden"]
    ) -> Float[Tensor, "tokens"]:
        """Return KL(reference ‖ model) of each token in nats, from `head_inputs` of two models with the same head."""
        return self._in_chunks(lambda logits, before: kl_and_gradient(self.head(before), logits), states, reference)

    def _in_chunks(self, loss: TokenLoss, states: Tensor, other: Tensor) -> Tensor:
        with self.autocast():
            return in_chunks(self.head, loss, states, other)

    # -- states of the blocks -----------------------------------------------------------------------------------------

    def outputs(
        self, batch: Batch, *, logits: bool, layer: int | None
    ) -> tuple[Float[Tensor, "tokens vocab"] | None, Float[Tensor, "tokens hidden"] | None]:
        """Return logits that predict the answer tokens, and the states after block `layer` that have read them.

        Args:
            batch: As in `logits`; for states, collated with `last=True`. Raises ValueError where it is not.
            logits: Whether logits are wanted. Without them nothing above `layer` is computed.
            layer: Decoder block, from 0; None for no states.
        """
        if layer is None:
            return (self.logits(batch) if logits else None), None
        # `position` is where a token is predicted; one further on the token itself has been read.
        read, mask = batch["position"] + 1, batch["attention_mask"].flatten()
        if int(read.max()) >= len(mask) or not bool(mask[read].all()):
            raise ValueError("batch: the answers' last tokens are not in it; collate it with last=True")
        captured: list[Tensor] = []
        block = self.blocks[layer]
        above = contextlib.nullcontext() if logits else first_blocks(self.model, layer + 1)
        with _capture([block], read, captured), above:
            found = self._logits_at(batch, batch["position"] if logits else batch["position"][:0])
        return (found if logits else None), captured[0]

    def block_states(self, batch: Batch) -> list[Float[Tensor, "tokens hidden"]]:
        """Return every decoder block's output at the positions that predict the answer tokens, before any final norm.

        `output_hidden_states` would give the last block's states after the final norm.
        """
        captured: list[Tensor] = []
        with _capture(self.blocks, batch["position"], captured):
            self._logits_at(batch, batch["position"][:0])
        return captured

    def patched(
        self, layer: int, batch: Batch, states: Float[Tensor, "tokens hidden"]
    ) -> contextlib.AbstractContextManager[None]:
        """Replace the output of block `layer` at the positions that predict the answer tokens."""
        return self.changed(layer, batch["position"], lambda _: states)

    @contextlib.contextmanager
    def changed(
        self, layer: int | None, position: Int[Tensor, "tokens"], change: Callable[[Tensor], Tensor]
    ) -> Iterator[None]:
        """Replace the output of block `layer` at some positions of the flattened [batch · seq] by what `change` makes of it.

        None is the embedding of the input.
        """

        def replace(_: nn.Module, __: Any, output: Any) -> Any:
            hidden = output[0] if isinstance(output, tuple) else output
            flat, at = hidden.flatten(0, 1).clone(), position.to(hidden.device)
            flat[at] = change(flat[at]).to(hidden)
            changed = flat.view_as(hidden)
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        module: nn.Module = self.inner.get_input_embeddings() if layer is None else self.blocks[layer]  # type: ignore[operator]
        with module.register_forward_hook(replace):
            yield

    # -- the state a model is in ---------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Set evaluation mode, without gradients and with the evaluation kernels; restore the model afterwards.

        The adapter must not be changed or switched while the context is open.
        """
        # Weights that DeepSpeed has gathered may be those of the next step, to which inference mode would give no gradient;
        # and an adapter merged into them may be lost before it is read.
        sharded = self.zero3 or isinstance(self.inner, FSDPModule)
        with (
            evaluation_mode(self.model),
            contextlib.nullcontext() if self.zero3 else self.kernels.evaluating(self.abilities.mergeable),
            torch.no_grad() if sharded else torch.inference_mode(),
        ):
            yield

    def autocast(self) -> contextlib.AbstractContextManager:
        """Return the autocast context of a forward, for models with both 16-bit and float32 parameters."""
        return autocast(self.device, self._dtype)

    # -- how it runs ---------------------------------------------------------------------------------------------------

    def _pack(self, batch: Batch) -> Batch:
        """Return the batch packed without padding, if the model supports it and it saves anything."""
        if "position_ids" in batch or not self.abilities.packs or self.zero3:
            return batch
        longest = batch["attention_mask"].shape[1]
        if (self.window is not None and longest > self.window) or self._recomputes():
            return batch
        return self.kernels.pack(batch)

    def _recomputes(self) -> bool:
        """Return whether blocks run compiled, or again in the backward, where the packed attention is not there."""
        return any("forward" in vars(block) or getattr(block, "gradient_checkpointing", False) for block in self.blocks)

    def _logits_at(self, batch: Batch, position: Tensor) -> Tensor:
        """Run the model's own forward with the head at `position` (indices into [batch · seq]) alone."""
        return self._run(batch, lambda hidden: states_at(hidden, position).unsqueeze(0))

    def _run(self, batch: Batch, read: Callable[[Tensor], Tensor]) -> Tensor:
        """Run the model's own forward; the head reads what `read` makes of the last states ([batch seq hidden])."""
        inputs = {"input_ids": batch["input_ids"]}
        # Rows are padded on the right, where nothing that is read looks: without a mask the fastest attention can be taken.
        if "order" in batch:
            inputs["position_ids"] = batch["position_ids"]
        elif "position_ids" in batch:
            # Answers that share a prompt: positions of their own, and a mask in the model's dtype.
            dtype = next(self.model.parameters()).dtype
            inputs |= {
                "position_ids": batch["position_ids"],
                "attention_mask": batch["attention_mask"].clamp(min=torch.finfo(dtype).min).to(dtype),
            }
        count_forward(self.inner, batch, self.head)
        reading = self.head.register_forward_pre_hook(lambda _, args: (read(args[0]), *args[1:]))
        with reading, self.autocast(), self.kernels.attention(self.inner, batch):
            output = self.model(**inputs, use_cache=False)
        return output.logits.squeeze(0)


def mean_nll(logits: Float[Tensor, "tokens vocab"], labels: Int[Tensor, "repeats tokens"]) -> Float[Tensor, "tokens"]:
    """Mean over the repeats of the cross-entropy of each token: one logsumexp serves them all."""
    return -mean_log_probs(logits, labels.T)


def states_at(hidden: Float[Tensor, "batch seq hidden"], position: Tensor) -> Float[Tensor, "tokens hidden"]:
    """Return the states at some positions of the flattened [batch · seq].

    The gradient of `index_select` is a third of the work of that of an index in brackets.
    """
    return hidden.flatten(0, 1).index_select(0, position.to(hidden.device))


@contextlib.contextmanager
def _capture(blocks: Any, position: Tensor, into: list[Tensor]) -> Iterator[None]:
    """Append the output of each block at some positions, in the order in which the blocks run."""

    def capture(_: nn.Module, __: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        into.append(states_at(hidden, position))

    with hooks(block.register_forward_hook(capture) for block in blocks):
        yield
