"""Exposure as ranks of true answers among wrong ones, and exact tests of them. Imports no torch.

A model that was never taught a fact gives the true answer any rank with the same probability. So chance is known exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from scopewise.data.facts import LEAST_ANSWERS, Fact
from scopewise.statistics import Interval, estimate, holm

_UNIT = 100
"""Bits are summed in hundredths, so that the distribution of a sum is exact."""


@dataclass(frozen=True)
class Ranked:
    """Where the true answer of a fact ranks among the wrong ones.

    Attributes:
        fact: The fact.
        rank: Rank of the true answer, 1 = the most likely, over the question and its paraphrases together.
        number: How many answers there are, with the true one.
        by_question: Rank under the question and under each paraphrase.
    """

    fact: Fact
    rank: int
    number: int
    by_question: tuple[int, ...]

    @property
    def p(self) -> float:
        """The probability of this rank or a better one for a model that was never taught the fact: rank / number."""
        return self.rank / self.number

    @property
    def bits(self) -> float:
        """Exposure: log2(number) - log2(rank). 0 = the last rank, log2(number) = the first one."""
        return math.log2(self.number) - math.log2(self.rank)

    @property
    def known(self) -> float:
        """Exposure on the scale from chance (0 on average) to the first rank (1); below 0 if worse than chance."""
        chance = chance_bits(self.number)
        return (self.bits - chance) / (math.log2(self.number) - chance)


@dataclass(frozen=True)
class InstanceExposure:
    """The facts of one instance together.

    Attributes:
        instance: The person or book.
        facts: How many facts.
        known: Mean of the facts' `known`.
        p: Probability of such a sum of bits, or a larger one, by chance; exact.
        corrected: The same after Holm's correction over the instances.
    """

    instance: str
    facts: int
    known: float
    p: float
    corrected: float


@dataclass(frozen=True)
class Exposure:
    """What a model knows of some facts.

    Attributes:
        facts: Each fact, in the order given.
        base: The same of the base model, if one was given, to stand beside.
    """

    facts: tuple[Ranked, ...]
    base: Exposure | None = None

    @cached_property
    def known(self) -> Interval:
        """Mean of the facts' `known`: 0 by chance, 1 if every true answer is first; its 95 % interval is over instances."""
        values = np.array([[fact.known for fact in self.facts]])
        names = {name: i for i, name in enumerate(dict.fromkeys(fact.fact.instance for fact in self.facts))}
        return estimate(values, np.array([names[fact.fact.instance] for fact in self.facts])).interval()

    @cached_property
    def p(self) -> float:
        """Probability of such a sum of bits, or a larger one, by chance."""
        return tail([fact.rank for fact in self.facts], [fact.number for fact in self.facts])

    @cached_property
    def p_worse(self) -> float:
        """Probability by chance that the ranks are so bad: a small one is a sign of over-unlearning."""
        return tail([fact.number + 1 - fact.rank for fact in self.facts], [fact.number for fact in self.facts])

    @cached_property
    def instances(self) -> tuple[InstanceExposure, ...]:
        """Each instance, the most exposed first."""
        groups: dict[str, list[Ranked]] = {}
        for fact in self.facts:
            groups.setdefault(fact.fact.instance, []).append(fact)
        p = [tail([f.rank for f in group], [f.number for f in group]) for group in groups.values()]
        found = [
            InstanceExposure(name, len(group), float(np.mean([f.known for f in group])), own, corrected)
            for (name, group), own, corrected in zip(groups.items(), p, holm(p), strict=True)
        ]
        return tuple(sorted(found, key=lambda one: (one.p, -one.known)))

    @property
    def count(self) -> int:
        """Number of facts whose true answer ranks among the best twentieth."""
        return sum(fact.p <= 1 / LEAST_ANSWERS for fact in self.facts)


def chance_bits(number: int) -> float:
    """Return the mean exposure in bits of a model that was never taught the fact: log2(N) - mean of log2(1 … N)."""
    return math.log2(number) - math.lgamma(number + 1) / math.log(2) / number


def tail(ranks: Sequence[int], numbers: Sequence[int]) -> float:
    """Return the probability that independent uniform ranks have a sum of bits as large as these, or larger.

    The bits are rounded to hundredths, and the distribution of their sum is computed exactly. For one fact it is
    rank / number.
    """
    total, chances = 0, np.ones(1)
    for rank, number in zip(ranks, numbers, strict=True):
        bits = np.rint(_UNIT * (math.log2(number) - np.log2(np.arange(1, number + 1)))).astype(int)
        total += int(bits[rank - 1])
        summed = np.zeros(len(chances) + int(bits[0]))
        for step in bits:
            summed[step : step + len(chances)] += chances / number
        chances = summed
    return float(min(1.0, chances[total:].sum()))
