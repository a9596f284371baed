"""One forward pass over rows, and one generation pass: what all measures are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from scopewise.bars import bar
from scopewise.data.batch import collate, length_batches
from scopewise.data.prompt import Encoded
from scopewise.data.rows import Row
from scopewise.models.forward import answer_logits, device_of, to_device
from scopewise.ops import hits, sequence_mean, sequence_sum, token_log_probs


@dataclass(frozen=True)
class Answered:
    """A row and what a model makes of it.

    Attributes:
        row: The row.
        log_probs: log P of each true answer token given everything before it, in nats, float32.
        hits: Whether each answer token is the arg-max (teacher-forced).
        predicted: The decoded arg-max tokens (teacher-forced): text that depends on the true answer.
        generated: The text the model writes after the prompt, greedily; None where nothing was generated.
    """

    row: Row
    log_probs: tuple[float, ...]
    hits: tuple[bool, ...]
    predicted: str
    generated: str | None = None


def score(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[Encoded],
    max_tokens: int = 4096,
    description: str = "score",
) -> list[Answered]:
    """Forward each row once, in batches of similar length, with logits in fp32 at answer positions only.

    Args:
        model: A causal LM; put into evaluation mode, and back.
        tokenizer: Decodes the arg-max tokens.
        items: Tokenised rows.
        max_tokens: Padded tokens per batch.
        description: Of the progress bar.

    Returns:
        One entry per row, in order.
    """
    answered: dict[int, Answered] = {}
    device = device_of(model)
    training = model.training
    model.eval()
    with torch.inference_mode(), bar(len(items), description) as progress:
        for indices in length_batches([len(item) for item in items], max_tokens):
            batch = to_device(collate([items[i] for i in indices]), device)
            logits = answer_logits(model, batch).float()
            predicted = logits.argmax(-1)
            counts = [len(items[i].answer_ids) for i in indices]
            log_probs = token_log_probs(logits, batch["label"]).cpu().split(counts)
            hit = hits(logits, batch["label"]).cpu().split(counts)
            texts = tokenizer.batch_decode([ids.tolist() for ids in predicted.cpu().split(counts)])
            for i, lp, h, text in zip(indices, log_probs, hit, texts, strict=True):
                answered[i] = Answered(items[i].row, tuple(lp.tolist()), tuple(h.tolist()), text)
            progress.update(len(indices))
    model.train(training)
    return [answered[i] for i in range(len(items))]


def hit_rate(model: torch.nn.Module, items: Sequence[Encoded], max_tokens: int = 4096) -> float:
    """Return the mean over rows of the share (0-1) of answer tokens that are the arg-max under teacher forcing."""
    total = 0.0
    training = model.training
    model.eval()
    with torch.inference_mode():
        for indices in length_batches([len(item) for item in items], max_tokens):
            batch = to_device(collate([items[i] for i in indices]), device_of(model))
            right = hits(answer_logits(model, batch), batch["label"]).float()
            total += float(sequence_mean(right, batch["row"], len(indices)).sum())
    model.train(training)
    return total / len(items)


def sequence_nll(
    model: torch.nn.Module, items: Sequence[Encoded], description: str, max_tokens: int = 4096
) -> list[float]:
    """Return the negative log-likelihood of each answer in nats, summed over its tokens, in fp32 and without dropout."""
    found: dict[int, float] = {}
    training = model.training
    model.eval()
    with torch.inference_mode(), bar(len(items), description) as progress:
        for indices in length_batches([len(item) for item in items], max_tokens):
            batch = to_device(collate([items[i] for i in indices]), device_of(model))
            nll = -token_log_probs(answer_logits(model, batch), batch["label"])
            found.update(zip(indices, sequence_sum(nll, batch["row"], len(indices)).tolist(), strict=True))
            progress.update(len(indices))
    model.train(training)
    return [found[i] for i in range(len(items))]


def generate(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[Encoded],
    max_new_tokens: int = 64,
    max_tokens: int = 16384,
    description: str = "generate",
    temperature: float = 0.0,
    seed: int = 0,
) -> list[str]:
    """Continue each row's prompt, in left-padded batches of similar prompt length.

    Args:
        model: A causal LM; put into evaluation mode, and back.
        tokenizer: Decodes what is generated; special tokens are left out.
        items: Tokenised rows; only their prompts are given to the model.
        max_new_tokens: Where a model that never stops is stopped.
        max_tokens: Padded tokens per batch, prompt and new ones.
        description: Of the progress bar.
        temperature: 0 continues greedily; above it, tokens are sampled.
        seed: Of the sampling; the state of torch's generators is left as it was.

    Returns:
        One text per row, in order, stripped of surrounding white space.
    """
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    config = GenerationConfig(
        do_sample=temperature > 0,
        **({"temperature": temperature, "top_k": 0} if temperature > 0 else {}),
        max_new_tokens=max_new_tokens,
        pad_token_id=pad,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    texts: dict[int, str] = {}
    device = device_of(model)
    training = model.training
    model.eval()
    with (
        torch.random.fork_rng(),
        torch.inference_mode(),
        bar(len(items), description) as progress,
    ):
        torch.manual_seed(seed)
        for indices in length_batches([len(item.prompt_ids) + max_new_tokens for item in items], max_tokens):
            prompts = [items[i].prompt_ids for i in indices]
            width = max(map(len, prompts))
            ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts], device=device)
            mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
            output = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)  # type: ignore[operator]
            decoded = tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)
            texts.update({i: text.strip() for i, text in zip(indices, decoded, strict=True)})
            progress.update(len(indices))
    model.train(training)
    return [texts[i] for i in range(len(items))]


def with_generated(answered: Sequence[Answered], texts: Sequence[str]) -> list[Answered]:
    """Return the answers with their generated texts."""
    return [replace(a, generated=text) for a, text in zip(answered, texts, strict=True)]
