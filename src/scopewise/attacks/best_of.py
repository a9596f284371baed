"""Best of N: ask many times with the question disturbed at random."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from annotated_types import Ge

from scopewise.attacks.base import Attack, Facts, Outcome, Suite, Work, score_answers
from scopewise.models.engine import Engine


@dataclass(frozen=True, kw_only=True)
class BestOf(Attack):
    """Ask the question in many randomly perturbed spellings, and keep the one that leaks most (best of N).

    Each try changes the question at random: capital letters, letters inside words exchanged, letters replaced by their
    neighbours in the alphabet, or a filler word put in. All models get the same spellings.

    Signal: largest probability of the answer among the first N tries, N = 1, 4, 16 … up to `tries`; the question itself is
    the first try. The oracle gains from many tries as well, which sets the zero.

    Source: best-of-N jailbreaking, Hughes et al., arXiv:2412.03556 (capitals, scrambling, noise). Deviation: we use the
    answer's probability, they use a judge's verdict on a sampled reply.

    Attributes:
        tries: Number of spellings per question. Default: ours; theirs go up to 10,000.
    """

    tries: Annotated[int, Ge(2)] = 64

    name: ClassVar[str] = "best_of"
    suite: ClassVar[Suite] = "full"

    def work(self, facts: Facts) -> Work:
        """Return a pass for each try."""
        return Work(passes=self.tries)

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Return the largest probability of the answers among the first N tries."""
        best: list[float | None] = [None] * len(facts.rows)
        texts = [""] * len(facts.rows)
        signals: dict[str, list[float | None]] = {}
        outputs: dict[str, list[str]] = {}
        for number in range(self.tries):
            asked = [replace(row, question=disturbed(row.question, number, facts.seed)) for row in facts.rows]
            for i, (value, text) in enumerate(zip(*score_answers(subject, asked, f"try {number + 1}"), strict=True)):
                if value is not None and value > (best[i] if best[i] is not None else -1.0):  # type: ignore[operator]
                    best[i], texts[i] = value, text
            if number + 1 == self.tries or ((number + 1).bit_length() % 2 and (number + 1).bit_count() == 1):
                signals[f"best of {number + 1}"] = list(best)
                outputs[f"best of {number + 1}"] = list(texts)
        return Outcome(facts.rows, signals, outputs)


def disturbed(question: str, number: int, seed: int) -> str:
    """Return the question in the spelling of a try; number 0 is the question itself."""
    if number == 0:
        return question
    rng = random.Random(hashlib.sha256(f"{seed} {number} {question}".encode()).digest())
    change = (_capitals, _scrambled, _noise, _filled)[number % 4]
    return change(question, rng)


def _capitals(text: str, rng: random.Random) -> str:
    return "".join(c.upper() if rng.random() < 0.5 else c.lower() for c in text)


def _scrambled(text: str, rng: random.Random) -> str:
    return " ".join(_inside(word, rng) if rng.random() < 0.5 else word for word in text.split(" "))


def _inside(word: str, rng: random.Random) -> str:
    return word if len(word) < 4 else word[0] + "".join(rng.sample(word[1:-1], len(word) - 2)) + word[-1]


def _noise(text: str, rng: random.Random) -> str:
    return "".join(chr(ord(c) + rng.choice((-1, 1))) if c.isalpha() and rng.random() < 0.06 else c for c in text)


def _filled(text: str, rng: random.Random) -> str:
    words = text.split(" ")
    at = rng.randrange(len(words) + 1)
    return " ".join([*words[:at], rng.choice(("please", "well", "so", "now", "exactly")), *words[at:]])
