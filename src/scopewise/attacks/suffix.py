"""Search for a suffix of the question that brings the answers back: greedy coordinate gradient, bounded."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor

from scopewise.attacks.base import Attack, Facts, InapplicableError, Outcome, Work, score_answers
from scopewise.bars import bar
from scopewise.data.rows import Row
from scopewise.models.engine import Engine

_START = "!"
_TOP = 64

Split = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Token ids before the suffix, after it, and of the answer."""


@dataclass(frozen=True, kw_only=True)
class Suffix(Attack):
    """Search for a suffix that makes the model answer about instances the attacker knows, and use it on the others.

    Greedy coordinate gradient: the suffix starts as exclamation marks. Each step takes the gradient of the loss on the known
    answers with respect to the suffix's tokens, tries `candidates` exchanges of one token among the 64 most promising
    at each position, and keeps the best suffix. Each model gets its own search, the oracle too. The suffix found is put into
    the question as text.

    Signal: probability of the answer with the suffix of exclamation marks (`start`), and with the one found (`searched`).

    How to read it: the search is short, so the absence of a leak proves little; a leak means that a prompt is enough to
    undo the unlearning. The published attack takes 500 steps of 512 candidates: raise both for a thorough test.

    Source: Zou et al., arXiv:2307.15043 (universal suffix). Deviation: the loss is on known answers of the forget scope, not
    on an affirmative start; few steps.

    Attributes:
        tokens: Length of the suffix. Default: ours; theirs is 20.
        steps: Number of search steps. Default: ours; theirs is 500.
        candidates: Number of suffixes tried in each step. Default: ours; theirs is 512.
        rows: Number of known rows whose loss the search minimises. Default: ours.
    """

    tokens: Annotated[int, Ge(1)] = 8
    steps: Annotated[int, Ge(1)] = 20
    candidates: Annotated[int, Ge(1)] = 32
    rows: Annotated[int, Ge(1)] = 8

    name = "suffix"
    suite = "full"

    def work(self, facts: Facts) -> Work:
        """Return the steps and tries of the search."""
        share = self.rows / max(1, len(facts.rows))
        return Work(steps=self.steps * self.rows / 16, passes=2 + self.steps * self.candidates * share)

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Return the probability of the tested answers with the first and the last suffix."""
        facts.check_split()
        known = [row for row in facts.held if row.question][: self.rows]
        first = subject.tokenizer(_START, add_special_tokens=False)["input_ids"]
        if not known or len(first) != 1:
            raise InapplicableError("no known row has a question, or the tokenizer has no token of an exclamation mark")
        start = [int(first[0])] * self.tokens
        found = self._searched(subject, [_split(subject, row) for row in known], start, facts.seed)
        signals, texts = {}, {}
        for setting, ids in (("start", start), ("searched", found)):
            suffix = subject.tokenizer.decode(ids)
            asked = [replace(row, question=f"{row.question} {suffix}") for row in facts.tested]
            signals[setting], texts[setting] = score_answers(subject, asked, f"suffix, {setting}")
        return Outcome(facts.tested, signals, texts)

    def _searched(self, subject: Engine, rows: Sequence[Split], start: list[int], seed: int) -> list[int]:
        rng = random.Random(seed)
        special = set(subject.tokenizer.all_special_ids)
        usable = torch.tensor([i not in special for i in range(subject.vocab_size)])
        best, loss = start, _losses(subject, rows, [start])[0]
        with bar(self.steps, f"{subject.name}: search a suffix", "step") as progress:
            for _ in range(self.steps):
                gradient = _gradient(subject, rows, best)[:, : len(usable)].cpu()
                gradient[:, ~usable] = torch.inf
                promising = (-gradient).topk(min(_TOP, int(usable.sum())), dim=1).indices.tolist()
                tried = []
                for _ in range(self.candidates):
                    at = rng.randrange(len(best))
                    tried.append([*best[:at], rng.choice(promising[at]), *best[at + 1 :]])
                losses = _losses(subject, rows, tried)
                at = min(range(len(tried)), key=losses.__getitem__)
                if losses[at] < loss:
                    best, loss = tried[at], losses[at]
                progress.update(1)
        return best


def _split(subject: Engine, row: Row) -> Split:
    """Return the ids around the suffix: what the prompts of two different suffixes have in common."""
    one, other = (subject.encode([replace(row, question=f"{row.question} {mark}")])[0] for mark in ("!", "?"))
    head = _common(one.prompt_ids, other.prompt_ids)
    tail = _common(one.prompt_ids[head:][::-1], other.prompt_ids[head:][::-1])
    return one.prompt_ids[:head], one.prompt_ids[len(one.prompt_ids) - tail :], one.answer_ids


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the length of the common beginning."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))


def _losses(subject: Engine, rows: Sequence[Split], suffixes: Sequence[list[int]]) -> list[float]:
    """Return the mean NLL of the answers' tokens under each suffix."""
    pairs = [((*head, *suffix, *tail), answer) for suffix in suffixes for head, tail, answer in rows]
    scored = iter(subject.score(pairs, "try suffixes", moments=False, share_prompts=False))
    losses = []
    for _ in suffixes:
        log_probs = [value for _ in rows for value in next(scored).log_probs]
        losses.append(-sum(log_probs) / len(log_probs))
    return losses


def _gradient(subject: Engine, rows: Sequence[Split], suffix: list[int]) -> Float[Tensor, "tokens vocab"]:
    """Return the gradient of the summed loss with respect to the one-hot tokens of the suffix."""
    model: Any = subject.model
    table = model.get_input_embeddings().weight.detach()
    total = torch.zeros(len(suffix), table.shape[1]).to(table)
    for head, tail, answer in rows:
        ids = torch.tensor([[*head, *suffix, *tail, *answer]], device=table.device)
        states = table[ids].clone().requires_grad_(True)
        logits = model(inputs_embeds=states, attention_mask=torch.ones_like(ids), use_cache=False).logits[0]
        labels = ids[0, -len(answer) :]
        loss = torch.nn.functional.cross_entropy(logits[-len(answer) - 1 : -1].float(), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, states)
        total += gradient[0, len(head) : len(head) + len(suffix)].to(total)
    return total.float() @ table.float().T
