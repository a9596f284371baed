"""Log-probabilities and divergences of answer tokens without the logits of all of them at once.

The logits of 4096 answer tokens over 128 256 words are 2 GB in float32, and their softmax and gradient as much again. A
loss of one number per token gets it in chunks, and with it, while a chunk's logits are there, the gradient of what the head
reads: nothing of the size of the logits is kept, and nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.distributed.tensor import DTensor

from scopewise.data.batch import Batch
from scopewise.models.forward import (
    answer_logits,
    device_of,
    in_line,
    output_embeddings,
    reading_head,
    states_at,
    unwrapped,
)
from scopewise.models.partitioned import in_parts
from scopewise.models.precision import computing
from scopewise.models.trial import reaching_far, same
from scopewise.models.work import uncounted
from scopewise.ops import TokenStatistics, kl_and_gradient, mean_log_probs, nll_and_gradient, token_statistics

CHUNK_LOGITS = 2**25
"""Logits that exist at once: 128 MiB in float32."""

PROCESSOR_LOGITS = 2**21
"""The same on a CPU: 8 MiB."""

LEAST_TOKENS = 64
"""Tokens whose logits exist at once, however many words there are: with fewer, reading the head takes longer than using it."""

_TokenLoss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Takes logits, which it may write over, and what is given beside them; returns the loss of each token and its gradient."""


def answer_states(model: nn.Module, batch: Batch, *, line: bool = False) -> Float[Tensor, "tokens hidden"]:
    """Return what the head reads at the positions that predict the answer tokens; the head itself computes nothing.

    `line` is as in `answer_logits`.
    """
    batch = in_line(model, batch) if line else batch
    read: list[Tensor] = []

    def keep(hidden: Tensor) -> Tensor:
        read.append(states_at(hidden, batch["position"]))
        return hidden[:, :0]

    reading_head(model, batch, keep)
    return read[0]


def answer_nll(
    model: nn.Module, batch: Batch, labels: Int[Tensor, "repeats tokens"] | None = None, *, line: bool = False
) -> Float[Tensor, "tokens"]:
    """Return the CE of each answer token in nats, averaged over several labellings of it; in chunks where it can be.

    Args:
        model: A causal LM.
        batch: As `collate` makes it.
        labels: None takes the batch's own.
        line: As in `answer_logits`.
    """
    wanted = batch["label"].unsqueeze(0) if labels is None else labels
    if not has_plain_head(model):
        return mean_nll(answer_logits(model, batch, line=line), wanted)
    return states_nll(model, answer_states(model, batch, line=line), wanted)


def states_nll(
    model: nn.Module, states: Float[Tensor, "tokens hidden"], labels: Int[Tensor, "repeats tokens"]
) -> Float[Tensor, "tokens"]:
    """Return what `answer_nll` does, from the states that the head reads."""
    return _in_chunks(model, nll_and_gradient, states, labels.T)


def states_kl(
    model: nn.Module, reference: Float[Tensor, "tokens hidden"], states: Float[Tensor, "tokens hidden"]
) -> Float[Tensor, "tokens"]:
    """Return KL(reference ‖ model) of each token in nats, from the states that a head reads which both share."""
    head = output_embeddings(model)
    return _in_chunks(model, lambda logits, before: kl_and_gradient(head(before), logits), states, reference)


def mean_nll(logits: Float[Tensor, "tokens vocab"], labels: Int[Tensor, "repeats tokens"]) -> Float[Tensor, "tokens"]:
    """Mean over the repeats of the CE of each token: one logsumexp serves them all."""
    return -mean_log_probs(logits, labels.T)


def answer_statistics(model: nn.Module, batch: Batch, moments: bool) -> TokenStatistics:
    """Return `token_statistics` of each answer token; in chunks where it can be, rows one after the other."""
    if not has_plain_head(model):
        return token_statistics(answer_logits(model, batch, line=True), batch["label"], moments)
    states, head = answer_states(model, batch, line=True), output_embeddings(model)
    size = _chunk_of(head, states)
    with computing(unwrapped(model)):
        parts = [
            token_statistics(head(part), labels, moments)
            for part, labels in zip(states.split(size), batch["label"].split(size), strict=True)
        ]
    return TokenStatistics(*map(torch.cat, zip(*parts, strict=True)))


def _in_chunks(model: nn.Module, loss: _TokenLoss, states: Tensor, other: Tensor) -> Tensor:
    head = output_embeddings(model)
    with computing(unwrapped(model)):
        found: Tensor = _Chunked.apply(states, other, head, loss, _chunk_of(head, states))  # type: ignore[no-untyped-call]
    return found


def _chunk_of(head: nn.Module, states: Tensor) -> int:
    """Return how many tokens' logits exist at once."""
    logits = PROCESSOR_LOGITS if states.device.type == "cpu" else CHUNK_LOGITS
    return max(LEAST_TOKENS, logits // int(head.weight.shape[0]))  # type: ignore


class _Chunked(torch.autograd.Function):
    """A loss of each token, that depends on nothing but the token's own states (and what is given beside them).

    So the gradient of the sum holds that of every token, and the backward scales each by what it is given.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, states: Tensor, other: Tensor, head: nn.Module, loss: _TokenLoss, size: int
    ) -> Tensor:
        wanted = ctx.needs_input_grad[0]  # type: ignore[attr-defined]
        values, gradients = [], []
        for part, given in zip(states.split(size), other.split(size), strict=True):
            part = part.detach().requires_grad_(wanted)
            with torch.set_grad_enabled(wanted):
                logits = head(part)
            value, of_logits = loss(logits.detach(), given)
            values.append(value)
            if wanted:
                gradients += torch.autograd.grad(logits, part, of_logits.to(logits.dtype))
        if wanted:
            ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (of_states,) = ctx.saved_tensors
        return (of_states * gradient.unsqueeze(-1)).to(of_states.dtype), None, None, None, None


_PLAIN: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def has_plain_head(model: nn.Module) -> bool:
    """Return whether the model's logits are what its head makes of the states it reads, and the head gets no gradient.

    Models that scale or cap their logits do so after the head, and fail a trial on made-up ids, once per model, with logits
    beyond any cap: that does not depend on how large its weights are. A head whose weights are spread over processes has no
    matrix of its own shape here.
    """
    inner = unwrapped(model)
    head = output_embeddings(inner)
    if in_parts(inner) or head.weight.dim() != 2:  # type: ignore
        return False
    if any((p.requires_grad and torch.is_grad_enabled()) or isinstance(p, DTensor) for p in head.parameters()):
        return False
    if inner not in _PLAIN:
        training = inner.training
        inner.eval()
        ids = torch.arange(4, 9, device=device_of(inner)).unsqueeze(0) % head.weight.shape[0]  # type: ignore
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "position": torch.arange(5)}
        with uncounted(), torch.no_grad(), torch.random.fork_rng(), reaching_far(inner, head):
            whole = answer_logits(inner, batch)
            with computing(inner):
                made = head(answer_states(inner, batch))
        _PLAIN[inner] = same(made, whole)
        inner.train(training)
    return _PLAIN[inner]
