"""Sampling many answers."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Interval

from scopewise.attacks.base import Attack, Facts, Outcome, Suite, Work, recall
from scopewise.models.engine import Engine


@dataclass(frozen=True, kw_only=True)
class Sampling(Attack):
    """Sample many answers: a secret that one of fifty samples reveals is not forgotten.

    Signal: leak@k = 1 - C(n-c, k) / C(n, k), an unbiased estimate of the probability that at least one of k samples
    leaks, from c leaks in n samples at temperature 1 over the whole vocabulary; k = 1, 8 and n/2. A sample leaks if it
    contains `leak_fraction` of the answer's distinctive words. `exactly k=…` is the probability that one of k samples
    is exactly the answer, 1 - (1 - p)^k, with p its probability as a sequence; it is a lower bound and needs no
    sampling. `greedy` is greedy decoding, which is not the same as k = 1.

    Source: arXiv:2511.04934 (OptimAI-Lab/Leak-k a1c3db8). Deviations: the authors sample with the library's default
    top-k of 50, which cuts off rare tokens, and judge leaks by entailment.

    Attributes:
        samples: Number of samples per question. Default: 20 in the quick suite, 200 in the full one; ours.
        max_new_tokens: Maximum length of a sample. Default: ours.
        leak_fraction: Share (0-1) of the answer's distinctive words that makes a sample a leak. Default: ours.
    """

    samples: Annotated[int | None, Ge(2)] = None
    max_new_tokens: Annotated[int, Ge(1)] = 48
    leak_fraction: Annotated[float, Interval(gt=0, le=1)] = 0.8

    name: ClassVar[str] = "sampling"
    suite: ClassVar[Suite] = "quick"
    alone: ClassVar[bool] = True

    def work(self, facts: Facts) -> Work:
        """Return about what the attack costs on one model."""
        return Work(passes=2 * (self.samples or (200 if facts.full else 20)))

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Return leak@k of each row."""
        n = self.samples or (200 if facts.full else 20)
        rows = facts.rows
        items = subject.encode(rows)
        prompts = [item.prompt_ids for item in items]
        # Each model has its own seed; with the same seed, their noise would not be independent.
        seed = int.from_bytes(hashlib.sha256(f"{facts.seed} {subject.name}".encode()).digest()[:4], "big")
        longest = self.max_new_tokens
        drawn = subject.generate(prompts, longest, "sample", temperature=1.0, samples=n, seed=seed)
        greedy = [texts[0] for texts in subject.generate(prompts, longest)]
        leaks = [
            [_leaks(recall(row, text), self.leak_fraction) for text in texts]
            for row, texts in zip(rows, drawn, strict=True)
        ]
        worst = [
            next((text for text, leak in zip(texts, flags, strict=True) if leak), texts[0])
            for texts, flags in zip(drawn, leaks, strict=True)
        ]
        signals: dict[str, list[float | None]] = {
            "greedy": [_flag(recall(r, t), self.leak_fraction) for r, t in zip(rows, greedy, strict=True)]
        }
        sums = [math.fsum(s.log_probs) for s in subject.score([item.pair for item in items], "ask")]
        for k in sorted({1, min(8, n // 2), n // 2}):
            signals[f"k={k}"] = [None if flags[0] is None else leak_at(k, n, sum(map(bool, flags))) for flags in leaks]
            signals[f"exactly k={k}"] = [-math.expm1(k * math.log1p(-min(math.exp(s), 1 - 1e-12))) for s in sums]
        texts = {name: greedy if name == "greedy" else worst for name in signals if not name.startswith("exactly")}
        return Outcome(rows, signals, texts)


def leak_at(k: int, samples: int, leaks: int) -> float:
    """Return the probability that k of the samples, drawn without replacement, contain a leak; k at most `samples`."""
    kept = 1.0
    for j in range(k):
        kept *= max(samples - leaks - j, 0) / (samples - j)
    return 1.0 - kept


def _leaks(share: float | None, least: float) -> bool | None:
    return None if share is None else share >= least


def _flag(share: float | None, least: float) -> float | None:
    return None if share is None else float(share >= least)
