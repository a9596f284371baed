"""Generation in batches: greedy or sampled, sorted by length; finished rows are dropped from the batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from scopewise.models.architecture import unwrap
from scopewise.models.forward import Forward
from scopewise.models.parallel.fsdp import is_sharded
from scopewise.models.parallel.processes import any_process, gathered
from scopewise.models.score import over_batches
from scopewise.models.steps import Steps
from scopewise.models.vocabulary import padding_id

_DROP_FRACTION = 0.25
"""Finished rows are dropped when they are this share of the batch: copying the cache costs about one step."""


def generate(
    forward: Forward,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[tuple[int, ...]],
    max_new_tokens: int = 64,
    max_tokens: int = 16384,
    description: str = "generate",
    *,
    temperature: float = 0.0,
    samples: int = 1,
    seed: int = 0,
) -> list[list[str]]:
    """Continue prompts; each unique prompt is forwarded once for all its samples.

    Args:
        forward: Of a causal LM, which is put into evaluation mode and back.
        tokenizer: Decodes what is generated; special tokens are left out.
        prompts: Ids of each prompt.
        max_new_tokens: Maximum number of new tokens.
        max_tokens: Padded tokens per batch, prompt and new ones, over all samples.
        description: Of the progress bar.
        temperature: 0 continues greedily; above it, tokens are sampled from the whole vocabulary (no top-k, no top-p).
        samples: Number of continuations per prompt.
        seed: Seed of the sampling. Samples depend only on the seed and the prompt, not on the batch; torch's generators are
            not changed.

    Returns:
        The continuations of each prompt, in order, without surrounding white space.

    Raises:
        ModelError: a logit is not a number.
    """
    unique = list(dict.fromkeys(prompts))
    ends, pad = end_ids(forward.model, tokenizer), padding_id(forward.model, tokenizer)
    sharded = is_sharded(forward.model)
    found: dict[tuple[int, ...], list[str]] = {}

    def run(indices: list[int]) -> None:
        chosen = [unique[i] for i in indices]
        draws = [Draws(seed, prompt, s, temperature) for prompt in chosen for s in range(samples)]
        rows = _continue(Steps(forward, chosen, samples, pad), draws, ends, max_new_tokens, sharded)
        texts = [text.strip() for text in tokenizer.batch_decode(rows, skip_special_tokens=True)]
        for i, prompt in enumerate(chosen):
            found[prompt] = texts[i * samples : (i + 1) * samples]

    lengths = [(len(prompt) + max_new_tokens) * samples for prompt in unique]
    over_batches(forward, lengths, max_tokens, description, run)
    whole = {prompt: texts for part in gathered(found) for prompt, texts in part.items()}
    return [whole[prompt] for prompt in prompts]


def _continue(
    steps: Steps, draws: Sequence[Draws], ends: set[int], max_new_tokens: int, sharded: bool
) -> list[list[int]]:
    """Return the new ids of each row, without an end of sequence; all processes of a sharded model take as many steps."""
    new: list[list[int]] = [[] for _ in draws]
    alive = list(range(len(draws)))  # the row of the result for each row of the batch
    done: set[int] = set()
    for _ in range(max_new_tokens):
        token = next_tokens(steps.logits, [draws[row] for row in alive])
        for row, chosen in zip(alive, token.tolist(), strict=True):
            if row not in done:
                if chosen in ends:
                    done.add(row)
                else:
                    new[row].append(chosen)
        going = [i for i, row in enumerate(alive) if row not in done]
        if not (any_process(bool(going)) if sharded else going):
            break
        if going and len(alive) - len(going) >= _DROP_FRACTION * len(alive):
            steps.keep(going)
            token = token[torch.tensor(going, device=token.device)]
            alive = [alive[i] for i in going]
        steps.read(token)
    return new


class Draws:
    """Uniform random numbers for one sample, independent of the other rows in the batch."""

    def __init__(self, seed: int, prompt: tuple[int, ...], sample: int, temperature: float) -> None:
        self.temperature = temperature
        self._generator = torch.Generator()
        if temperature > 0:
            self._generator.manual_seed(hash((seed, prompt, sample)) % 2**63)

    def next(self) -> float:
        """Return the next number, in [0, 1)."""
        return float(torch.rand((), generator=self._generator, dtype=torch.float64))


def next_tokens(logits: Tensor, draws: Sequence[Draws]) -> Tensor:
    """Return each row's next token: the arg-max, or a draw by inverting the cumulative distribution."""
    if (temperature := draws[0].temperature) == 0:
        return logits.argmax(-1)
    cumulative = (logits.double() / temperature).softmax(-1).cumsum(-1)
    uniform = torch.tensor([draw.next() for draw in draws], dtype=torch.float64, device=logits.device)
    return (
        torch.searchsorted(cumulative, uniform.unsqueeze(-1) * cumulative[:, -1:])
        .squeeze(-1)
        .clamp(max=logits.shape[-1] - 1)
    )


def end_ids(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the ids that end an answer: the tokenizer's EOS and those of the model's generation config."""
    config = getattr(unwrap(model), "generation_config", None)
    named = getattr(config, "eos_token_id", None)
    ids = {tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])}
    return {int(i) for i in ids if i is not None}
