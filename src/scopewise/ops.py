"""The arithmetic of the package: every formula that is used twice lives here once, tested by hand-derived values.

Token quantities are *flat*: one entry per answer token of a batch, with `row` naming the sequence each belongs to.
Prompt tokens and padding never enter, so they cannot change a value.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable


class Reduction(StrEnum):
    """How a batch loss is computed from per-sequence values: `(value * weight).sum() / weight.sum()`."""

    SEQUENCE_MEAN = "sequence_mean"
    """Weight 1: each answer counts the same."""
    TOKEN_MEAN = "token_mean"
    """Weight = number of answer tokens: each token counts the same."""

    def weight(self, token_counts: Int[Tensor, "batch"]) -> Float[Tensor, "batch"]:
        """Return the weight of each sequence from its number of answer tokens."""
        return torch.ones_like(token_counts, dtype=torch.float32) if self == "sequence_mean" else token_counts.float()


def token_log_probs(logits: Float[Tensor, "tokens vocab"], labels: Int[Tensor, "tokens"]) -> Float[Tensor, "tokens"]:
    """Return log P(label) of each token in nats, computed in at least float32: `logit[label] - logsumexp(logits)`."""
    return mean_log_probs(logits, labels.unsqueeze(-1))


def mean_log_probs(
    logits: Float[Tensor, "tokens vocab"], labels: Int[Tensor, "tokens labels"]
) -> Float[Tensor, "tokens"]:
    """Return the mean of log P(label) over several labels of each token, in nats; differentiable once."""
    found: Tensor = _MeanLogProbs.apply(at_least_float32(logits), labels)  # type: ignore[no-untyped-call]
    return found


class _MeanLogProbs(torch.autograd.Function):
    """`mean logit[label] - logsumexp(logits)`, whose gradient is one tensor as large as the logits and not three.

    The backward pass reuses the softmax of the forward pass, and adds the terms of the labels in place.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor, labels: Tensor) -> Tensor:
        largest = logits.amax(-1, keepdim=True)
        weights = (logits - largest).exp_()
        total = weights.sum(-1, keepdim=True)
        ctx.save_for_backward(weights, total, labels)
        return logits.gather(-1, labels).mean(-1) - (largest + total.log()).squeeze(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        weights, total, labels = ctx.saved_tensors
        gradient = gradient.unsqueeze(-1)
        found = weights * (-gradient / total)
        return found.scatter_add_(-1, labels, (gradient / labels.shape[-1]).expand(labels.shape)), None


def token_kl(
    reference_logits: Float[Tensor, "tokens vocab"], logits: Float[Tensor, "tokens vocab"]
) -> Float[Tensor, "tokens"]:
    """Return KL(reference ‖ model) of each token in nats: `Σ_v p_ref (log p_ref - log p)`. Zero when both agree."""
    reference = at_least_float32(reference_logits).log_softmax(-1)
    return (reference.exp() * (reference - at_least_float32(logits).log_softmax(-1))).sum(-1)


def token_js(
    reference_logits: Float[Tensor, "tokens vocab"], logits: Float[Tensor, "tokens vocab"]
) -> Float[Tensor, "tokens"]:
    """Return the Jensen-Shannon divergence of each token in nats, 0 to ln 2: `½ KL(p_ref ‖ m) + ½ KL(p ‖ m)`, m their mean."""
    reference, own = at_least_float32(reference_logits).log_softmax(-1), at_least_float32(logits).log_softmax(-1)
    middle = torch.logaddexp(reference, own) - math.log(2)
    return 0.5 * (reference.exp() * (reference - middle) + own.exp() * (own - middle)).sum(-1)


def token_js_to_label(nll: Float[Tensor, "tokens"]) -> Float[Tensor, "tokens"]:
    """Return the Jensen-Shannon divergence of each token from its label alone, in nats, 0 (certain) to ln 2.

    With p = P(label) it is `ln 2 + ½ (p ln p - (1 + p) ln(1 + p))`, whatever the other probabilities are.
    """
    p = (-nll).exp()
    return math.log(2) + 0.5 * (-p * nll - (1 + p) * torch.log1p(p))


def token_kl_from_uniform(logits: Float[Tensor, "tokens vocab"]) -> Float[Tensor, "tokens"]:
    """Return KL(uniform ‖ model) of each token in nats: `-ln V - mean_v log p_v`. Zero for a uniform model."""
    return -math.log(logits.shape[-1]) - at_least_float32(logits).log_softmax(-1).mean(-1)


def nll_and_gradient(
    logits: Float[Tensor, "tokens vocab"], labels: Int[Tensor, "tokens labels"]
) -> tuple[Float[Tensor, "tokens"], Float[Tensor, "tokens vocab"]]:
    """Return the mean over several labels of the CE of each token, in nats, and its gradient: `p - mean onehot(label)`.

    float32 logits are overwritten, so that all passes are over data in the cache.
    """
    logits = at_least_float32(logits)
    of_labels = logits.gather(-1, labels).mean(-1)
    largest = logits.amax(-1, keepdim=True)
    weights = logits.sub_(largest).exp_()
    total = weights.sum(-1, keepdim=True)
    share = weights.new_tensor(-1 / labels.shape[-1]).expand(labels.shape)
    return (largest + total.log()).squeeze(-1) - of_labels, weights.div_(total).scatter_add_(-1, labels, share)


def kl_and_gradient(
    reference_logits: Float[Tensor, "tokens vocab"], logits: Float[Tensor, "tokens vocab"]
) -> tuple[Float[Tensor, "tokens"], Float[Tensor, "tokens vocab"]]:
    """Return `token_kl`, and its gradient by the model's logits: `p - p_ref`."""
    reference = at_least_float32(reference_logits).log_softmax(-1)
    own = at_least_float32(logits).log_softmax(-1)
    weights = reference.exp()
    return (reference.sub_(own).mul_(weights)).sum(-1), own.exp_().sub_(weights)


def token_entropy(logits: Float[Tensor, "tokens vocab"]) -> Float[Tensor, "tokens"]:
    """Return the Shannon entropy of each token's distribution in nats, 0 to log V: `logsumexp(z) - Σ_v p_v z_v`."""
    logits = at_least_float32(logits)
    return logits.logsumexp(-1) - (logits.softmax(-1) * logits).sum(-1)


class TokenStatistics(NamedTuple):
    """Statistics of each token's distribution and label; see `token_statistics`."""

    log_probs: Float[Tensor, "tokens"]
    predicted: Int[Tensor, "tokens"]
    means: Float[Tensor, "tokens"]
    variances: Float[Tensor, "tokens"]


CACHED_LOGITS = 2**18
"""Logits that are worked on at a time: a processor's cache holds them, and what is made of them, from the first pass to the
last (a MiB each in float32)."""


@torch.no_grad()
def token_statistics(
    logits: Float[Tensor, "positions vocab"],
    labels: Int[Tensor, "tokens"],
    moments: bool = True,
    of: Int[Tensor, "tokens"] | None = None,
) -> TokenStatistics:
    """Return log P(label) in nats, the arg-max token, and mean (nats) and variance (nats²) of log P under P itself.

    Each from the same few passes over the logits. With d = z - max z and s = Σ e^d:
    `log P(label) = d_label - log s`, `mean = Σ e^d d / s - log s`, `variance = Σ e^d (d - Σ e^d d / s)² / s`. Computed in at
    least float32; not differentiable. Tokens of probability zero do not contribute to the moments. Without `moments` both
    are NaN, and half of the passes are saved.

    Args:
        logits: At each position.
        labels: The tokens.
        moments: Whether mean and variance are wanted.
        of: The position of each token, where several tokens may share one; None: one position for each token, in order.
    """
    rows = max(1, CACHED_LOGITS // logits.shape[-1])
    if logits.device.type != "cpu":  # launching kernels for each piece would cost more than it saves
        rows = max(1, len(logits))
    parts = [_distribution(z, moments) for z in logits.split(rows)]
    found = [torch.cat(column) for column in zip(*parts, strict=True)]
    if of is None:
        of_label = logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    else:
        of_label, found = logits[of, labels], [column[of] for column in found]
    largest, log_total, predicted, means, variances = found
    return TokenStatistics(at_least_float32(of_label) - largest - log_total, predicted, means, variances)


def _distribution(logits: Tensor, moments: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the largest logit of each position, log Σ e^(z - largest), the arg-max token, mean and variance."""
    largest, predicted = _largest(at_least_float32(logits))
    below = at_least_float32(logits) - largest
    largest, predicted = largest.squeeze(-1), predicted.squeeze(-1)
    if not moments:
        log_total = below.exp_().sum(-1).log()
        unknown = torch.full_like(log_total, torch.nan)
        return largest, log_total, predicted, unknown, unknown
    below.clamp_(min=-1e4)  # e^-1e4 is 0, and 0 times it is 0 where 0 times -inf is not
    weights = below.exp()
    total = weights.sum(-1)
    mean = (weights * below).sum(-1) / total
    below.sub_(mean.unsqueeze(-1))
    variance = weights.mul_(below).mul_(below).sum(-1) / total
    log_total = total.log()
    return largest, log_total, predicted, mean - log_total, variance


_BLOCK = 64


def _largest(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest value of each row and where it is first, as `max(-1, keepdim=True)` does.

    A processor finds the largest value with vector instructions, but not its index. So this finds the largest value of each
    block first, and then the index within one block.
    """
    rows, columns = values.shape
    if values.device.type != "cpu" or columns % _BLOCK or columns == 0:
        found = values.max(-1, keepdim=True)
        return found.values, found.indices
    blocks = values.view(rows, columns // _BLOCK, _BLOCK)
    largest, block = blocks.amax(-1).max(-1, keepdim=True)
    within = blocks.gather(1, block.unsqueeze(-1).expand(-1, 1, _BLOCK)).squeeze(1)
    return largest, block * _BLOCK + within.argmax(-1, keepdim=True)


def token_cross_entropy(
    wanted: Float[Tensor, "tokens vocab"], logits: Float[Tensor, "tokens vocab"]
) -> Float[Tensor, "tokens"]:
    """Return the cross-entropy of each token to a wanted distribution in nats: `-Σ_v q_v log p_v`."""
    return -(wanted * at_least_float32(logits).log_softmax(-1)).sum(-1)


def squared_distance(a: Float[Tensor, "tokens hidden"], b: Float[Tensor, "#tokens hidden"]) -> Float[Tensor, "tokens"]:
    """Return the mean over dimensions of the squared difference of two states: `‖a - b‖² / d`."""
    return (at_least_float32(a) - at_least_float32(b)).square().mean(-1)


def token_position(row: Int[Tensor, "tokens"], batch: int) -> Int[Tensor, "tokens"]:
    """Return the index (from 0) of each answer token within its own answer; tokens of a sequence stand together."""
    counts = token_counts(row, batch)
    first = counts.cumsum(0) - counts
    return torch.arange(len(row), device=row.device) - first[row]


def token_counts(row: Int[Tensor, "tokens"], batch: int) -> Int[Tensor, "batch"]:
    """Return the number of answer tokens of each sequence."""
    return torch.bincount(row, minlength=batch)


def sequence_sum(value: Float[Tensor, "tokens"], row: Int[Tensor, "tokens"], batch: int) -> Float[Tensor, "batch"]:
    """Return the sum over each sequence's tokens (unit of `value`); zero for a sequence without tokens."""
    return value.new_zeros(batch).index_add(0, row, value)


def sequence_mean(value: Float[Tensor, "tokens"], row: Int[Tensor, "tokens"], batch: int) -> Float[Tensor, "batch"]:
    """Return the mean over each sequence's tokens (unit of `value`); zero for a sequence without tokens."""
    return sequence_sum(value, row, batch) / token_counts(row, batch).clamp(min=1)


def cosine(a: Float[Tensor, "..."], b: Float[Tensor, "..."]) -> float | None:
    """Return ⟨a, b⟩ / (‖a‖ ‖b‖) over all entries, in float64; None where a norm is zero and no angle exists."""
    a, b = a.detach().double().flatten(), b.detach().double().flatten()
    norms = float(a.norm() * b.norm())
    return float(a @ b) / norms if norms > 0 else None


def at_least_float32(x: Tensor) -> Tensor:
    """Return `x` in float32, or in its own dtype where that is float64 (finite-difference tests)."""
    return x if x.dtype == torch.float64 else x.float()
