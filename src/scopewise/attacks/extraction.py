"""Extraction with a prefix of the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Interval

from scopewise.attacks.base import Attack, Facts, Outcome, Suite
from scopewise.attacks.leakage import Combine
from scopewise.models.engine import Engine
from scopewise.models.score import decoded


@dataclass(frozen=True, kw_only=True)
class Extraction(Attack):
    """Give the model the beginning of the answer and check whether it completes it.

    Signal: share of the remaining tokens that are the arg-max, with each of `fractions` of the answer given. `all of it`
    (1 or 0) is verbatim extraction: greedy decoding reproduces the rest exactly if every remaining token is the
    arg-max. The leakage is that of the mean over these settings. All of them take a single forward pass.

    Source: Carlini et al., arXiv:2202.07646 (prefixes); Jang et al., arXiv:2210.01504 (memorization accuracy).

    Attributes:
        fractions: Shares (0-1) of the answer that are given. Default: ours.
    """

    fractions: tuple[Annotated[float, Interval(ge=0, lt=1)], ...] = (0.0, 0.25, 0.5, 0.75)

    name: ClassVar[str] = "extraction"
    suite: ClassVar[Suite] = "quick"
    alone: ClassVar[bool] = True
    combine: ClassVar[Combine] = "mean"

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Return the signals after each share of the answer."""
        scored = subject.score([item.pair for item in subject.encode(facts.rows)], "extract")
        signals: dict[str, list[float | None]] = {}
        for share in self.fractions:
            rests = [s.hits[int(share * len(s.hits)) :] for s in scored]
            signals[f"{100 * share:g}% given"] = [sum(rest) / len(rest) if rest else None for rest in rests]
            signals[f"{100 * share:g}% given, all of it"] = [float(all(rest)) if rest else None for rest in rests]
        texts = decoded(subject.tokenizer, [s.predicted_ids for s in scored])
        return Outcome(facts.rows, signals, dict.fromkeys(signals, texts))
