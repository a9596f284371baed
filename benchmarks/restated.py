"""The loops of the paper's code, restated: what `speed.py` measures scopewise against.

Written anew from zjunlp/KnowUnDo 92aea2b, with its shapes: one row per forward, padded to a fixed length, logits over the
whole vocabulary at every position, padding included. What the code does besides (end-of-sequence label, val rows among
the train rows, shuffling, bfloat16) is left out, so that both sides do the same work and must give the same numbers.

| here | there |
|---|---|
| `localization_gradient` | `pretrain/localization.py` `compute_info`, `batch_size=1`, `max_length=500`, `num_copies=3` |
| `step_gradient` | `llm_unlearn/methods/ascent_plus_descent.py`, `run_ours_lora.sh`: 1 row x 16 accumulated, length 256 |
| `score_rows` | `llm_unlearn/run_eval_lora.py`: `preprocess_logits_for_metrics`, `compute_metrics`, `run_eval_ours.sh`: 1 row |
| `continue_rows` | none: the code takes the arg-max at each place of the true answer. `generate` of transformers, 1 row |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from scopewise.data.prompt import Encoded

LOCALIZATION_LENGTH = 500
TRAINING_LENGTH = 256
IGNORED = -100


def fixed_length(
    item: Encoded, length: int, pad_id: int, answer_labels: Sequence[int] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return `input_ids`, `labels` and `attention_mask` of one row, each [1, length].

    Args:
        item: A tokenised row.
        length: What it is padded to.
        pad_id: What it is padded with.
        answer_labels: Labels at the answer's places; None takes the answer.
    """
    ids = [*item.prompt_ids, *item.answer_ids]
    rest = length - len(ids)
    labels = [IGNORED] * len(item.prompt_ids) + list(answer_labels or item.answer_ids) + [IGNORED] * rest
    mask = [1] * len(ids) + [0] * rest
    return torch.tensor([ids + [pad_id] * rest]), torch.tensor([labels]), torch.tensor([mask])


def stacked(
    items: Sequence[Encoded], length: int, pad_id: int, answer_labels: Sequence[Sequence[int] | None] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return `fixed_length` of several rows as one batch (the memory comparison at equal batch uses it)."""
    wanted = answer_labels or [None] * len(items)
    rows = [fixed_length(item, length, pad_id, label) for item, label in zip(items, wanted, strict=True)]
    ids, labels, masks = zip(*rows, strict=True)
    return torch.cat(ids), torch.cat(labels), torch.cat(masks)


def on(model: nn.Module, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Return tensors on the model's device."""
    device = next(model.parameters()).device
    return tuple(tensor.to(device) for tensor in tensors)


def localization_gradient(
    model: nn.Module,
    items: Sequence[Encoded],
    pad_id: int,
    answer_labels: Sequence[Sequence[int]] | None = None,
    batch: int = 1,
) -> dict[str, Tensor]:
    """Return each LoRA matrix's gradient averaged over the rows; the model computes the loss from `labels` itself.

    Args:
        model: In evaluation mode, with an adapter that requires gradients.
        items: The rows, already corrupted and as often as they are repeated.
        pad_id: What rows are padded with.
        answer_labels: Labels of each row where they are not its answer.
        batch: Rows per forward. With more than one the loss is a mean over tokens of all of them.
    """
    totals = {name: torch.zeros(p.shape) for name, p in model.named_parameters() if "lora" in name}
    wanted = answer_labels if answer_labels is not None else [None] * len(items)
    for start in range(0, len(items), batch):
        part = slice(start, start + batch)
        ids, labels, mask = on(model, *stacked(items[part], LOCALIZATION_LENGTH, pad_id, wanted[part]))
        model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss.backward()
        for name, parameter in model.named_parameters():
            if "lora" in name:
                assert parameter.grad is not None
                totals[name] += parameter.grad.detach().cpu().float()
        model.zero_grad()
    return {name: total / len(items) for name, total in totals.items()}


def step_gradient(
    model: nn.Module, items: Sequence[Encoded], factors: Sequence[float], pad_id: int, batch: int = 1
) -> None:
    """Accumulate the gradient of one GA + descent step in the model: mean over rows of factor x CE of the answer.

    Args:
        model: With trainable parameters.
        items: The rows of the step.
        factors: -1 for rows to forget, +1 for rows to keep.
        pad_id: What rows are padded with.
        batch: Rows per forward.
    """
    micro_batches = math.ceil(len(items) / batch)
    cross_entropy = nn.CrossEntropyLoss(reduction="none", ignore_index=IGNORED)
    for start in range(0, len(items), batch):
        ids, labels, mask = on(model, *stacked(items[start : start + batch], TRAINING_LENGTH, pad_id))
        factor = torch.tensor(factors[start : start + batch], device=ids.device)
        logits = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).logits
        shifted, wanted = logits[:, :-1].contiguous(), labels[:, 1:].contiguous()
        loss = cross_entropy(shifted.view(-1, shifted.shape[-1]), wanted.view(-1)).view(len(ids), -1)
        per_row = loss.sum(-1) / (wanted != IGNORED).sum(-1)
        ((per_row * factor).mean() / micro_batches).backward()


@dataclass(frozen=True)
class Scored:
    """What one row's evaluation gives: accuracy in percent, mean log-probability in nats per token, arg-max text."""

    accuracy: float
    mean_log_prob: float
    predicted: str


def score_rows(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, items: Sequence[Encoded], pad_id: int, batch: int = 1
) -> list[Scored]:
    """Return each row's accuracy and log-probability from log-softmax and arg-max over every position."""
    scored: list[Scored] = []
    for start in range(0, len(items), batch):
        ids, labels, mask = on(model, *stacked(items[start : start + batch], TRAINING_LENGTH, pad_id))
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).logits
            wanted = labels[:, 1:]
            counted = wanted != IGNORED
            log_probs = torch.log_softmax(logits, dim=-1)[:, :-1]
            log_probs = log_probs.gather(2, wanted.clamp(min=0).unsqueeze(-1)).squeeze(-1) * counted
            predicted = logits.argmax(-1)[:, :-1]
        for log_prob, best, label, kept in zip(log_probs, predicted, wanted, counted, strict=True):
            accuracy = 100.0 * float((best[kept] == label[kept]).float().mean())
            scored.append(Scored(accuracy, float(log_prob[kept].mean()), str(tokenizer.decode(best[kept].tolist()))))
    return scored


def continue_rows(
    model: Any, tokenizer: PreTrainedTokenizerBase, items: Sequence[Encoded], pad_id: int, new_tokens: int
) -> list[str]:
    """Return the greedy answer to each row's question, of at most `new_tokens` tokens, by transformers' own `generate`."""
    texts = []
    for item in items:
        (ids,) = on(model, torch.tensor([item.prompt_ids]))
        found = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=new_tokens,
            pad_token_id=pad_id,
        )
        texts.append(str(tokenizer.decode(found[0, ids.shape[1] :], skip_special_tokens=True)).strip())
    return texts
