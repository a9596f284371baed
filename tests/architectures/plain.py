"""What the numbers should be: the library's own forward, one row at a time, without any of our code around it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from scopewise.data.prompt import Encoded


def answer_nll(model: nn.Module, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
    """Return -log P of each answer token, in nats, from a forward of this row alone."""
    ids = torch.tensor([[*prompt, *answer]])
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
    return nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="none")


def hits(model: nn.Module, item: Encoded) -> float:
    """Return the share of answer tokens that are the arg-max."""
    ids = torch.tensor([[*item.prompt_ids, *item.answer_ids]])
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0, len(item.prompt_ids) - 1 : -1]
    return float((logits.argmax(-1) == torch.tensor(item.answer_ids)).float().mean())


def perplexity(model: nn.Module, items: Sequence[Encoded]) -> float:
    """Return exp of the mean over rows of each answer's mean NLL."""
    with torch.no_grad():
        rows = [float(answer_nll(model, item.prompt_ids, item.answer_ids).mean()) for item in items]
    return math.exp(math.fsum(rows) / len(rows))


def rounding(model: nn.Module, items: Sequence[Encoded]) -> float:
    """Return how far the perplexity moves, relative to itself, where each weight becomes the float beside it: most of 3 draws.

    It is what no computation in float32 can be held to, since a sum in another order moves as much.
    """
    before, moved = perplexity(model, items), []
    for seed in range(3):
        other, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in other.parameters():
                up = torch.rand(parameter.shape, generator=generator) < 0.5
                beside = torch.where(up, parameter + 1, parameter - 1)
                parameter.copy_(torch.nextafter(parameter, beside))
        moved.append(abs(perplexity(other, items) / before - 1))
    return max(moved)


def probability(model: nn.Module, item: Encoded) -> float:
    """Return the geometric mean of the probabilities of a row's answer tokens."""
    with torch.no_grad():
        return math.exp(-float(answer_nll(model, item.prompt_ids, item.answer_ids).mean()))


def truth_ratio(right: float, wrong: Sequence[float]) -> float:
    """Return P_right / (P_right + P_wrong), P_wrong the geometric mean."""
    mean = math.exp(math.fsum(map(math.log, wrong)) / len(wrong))
    return right / (right + mean + 1e-10)


def gradients(
    model: nn.Module, items: Sequence[Encoded], wanted: Mapping[str, nn.Parameter]
) -> list[dict[str, Tensor]]:
    """Return the gradient of each row's mean NLL, by autograd."""
    flags = [(p, p.requires_grad) for p in model.parameters()]
    for parameter, _ in flags:
        parameter.requires_grad_(True)
    found = []
    for item in items:
        loss = answer_nll(model, item.prompt_ids, item.answer_ids).mean()
        parts = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
        found.append(
            {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(wanted.items(), parts, strict=True)}
        )
    for parameter, flag in flags:
        parameter.requires_grad_(flag)
    return found


def mean_of(rows: Sequence[dict[str, Tensor]], change: Callable[[Tensor], Tensor] = lambda x: x) -> dict[str, Tensor]:
    """Return the mean over rows of what is made of each gradient."""
    return {name: torch.stack([change(row[name]) for row in rows]).mean(0) for name in rows[0]}


def continued(model: nn.Module, prompt: Sequence[int], length: int, ends: set[int]) -> list[int]:
    """Return greedy tokens, each from a forward of everything before it, without a cache."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(length):
            token = int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
            if token in ends:
                break
            ids.append(token)
    return ids[len(prompt) :]


def cosine(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Return the cosine of two sets of tensors as one vector each, in float64; 1 where both are zero."""
    dot = sum(float((a[n].double() * b[n].double()).sum()) for n in b)
    norms = [math.sqrt(sum(float(x[n].double().square().sum()) for n in b)) for x in (a, b)]
    return 1.0 if not any(norms) else dot / (norms[0] * norms[1] or 1e-300)
